"""Tests of one kernel's memory, on a scheduler that nobody but the test drives."""
