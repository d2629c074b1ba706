"""The interconnect between partitions: who can reach whom, and the faults on the way.

Both harnesses route every message through an `Interconnect`; its rules are the same objects in the
simulator and on real sockets. The fabric knows wire types and nothing else.
"""
