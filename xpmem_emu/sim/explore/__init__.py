"""Every schedule of a small world that deviates from the default order at most K times.

The real kernels, the real checkers; only the order of things, and what goes wrong, is chosen. A
*world* (`worlds`) is set up in default order and then explored: `schedule` runs one order of it,
asking a *chooser* wherever something else could happen; `verdict` judges it; `tree` runs all that
branches from it; `search` goes deeper until something is found. A schedule is named by its
deviations and can be run again from that name alone (`choices`).

What may deviate, what is cut and why nothing is lost by it: docs/decisions/012-every-schedule.md.
"""
