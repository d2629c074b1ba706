"""A costed machine: processors, locks and interrupts in virtual time, exact to the nanosecond.

It runs no protocol. It answers what a design costs those who wait: how long, for what, and with
what switched off. Costs and processors come from the section `machine` of an image; the simulated
kernels know neither.
"""
