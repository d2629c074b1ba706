"""Tests of the kernel's scheduler and locks."""
