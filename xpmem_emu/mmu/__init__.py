"""Secondary MMUs: devices that translate a task's addresses by themselves (sources T7, T13, T14).

    gru       a TLB outside the processor: finite, shared by all tasks, filled on a miss
    guest     the shadow page tables of a virtual machine, with addresses of its own
    mirror    a device that mirrors a part of the address space, as HMM has it

Each subscribes to the notifier chain of one address space and drops what it learned from an entry
in the step that changes it (`secondary`); what it misses it gets by the task's own page fault, so
an attached page works like any other. None keeps an address space, an area or an entry alive.
"""
