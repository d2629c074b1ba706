"""Mutants that are one line of the kernel gone wrong (`slip`): a module for what it is for."""
