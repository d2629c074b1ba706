"""The laboratory: the designs of the argument of 2008, run side by side and measured.

    machine        a costed machine: processors, locks, interrupts; no protocol
    experiment     what an experiment declares
    experiments/   one file each, which is all that it takes to add one
    large_machine  thousands of partitions: boot, share, recall, loss
    registry       which there are: the files of that folder
    running        measures the cases of one, on several processes
    report         docs/lab.md, `tables` and `plots` for it

Where a claim is about the protocol, its experiment runs the real kernels (`sim`); where it is about
processors and locks, the machine, whose costs are assumed and said with the table.

To add an experiment: a file `my_name` in `experiments/` that assigns an `Experiment` to
`EXPERIMENT`, with the next place of the report. Its cases are rows, each measured on its own in
some process, so what measures a case knows nothing but the setting and the case, and seeds itself
from both. Then `xpmem-emu lab report --only my-name` puts its section into docs/lab.md.
"""
