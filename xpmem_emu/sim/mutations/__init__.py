"""Protocols broken on purpose, all from outside: `table` lists the mutants, and one module for each
part of the kernel says how each breaks it. Names alone import no kernel.
"""
