"""Who judges a run and who shows it, whoever ran it: the simulator, real processes, containers.

What a run did comes in as events, as steps of kernels that can be looked at (`observer`), or as the
history of calls. Nothing here runs anything, and no module of the kernel side knows of it.
"""
