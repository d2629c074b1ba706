"""The program of a partition process whose kernel is the fake one.

`fake_partition.py --config FILE` as the launcher starts it; `fake_partition.py CLUSTER NAME` is
what a container would run.
"""

import sys

# It runs as a script: what is beside it has no package.
from fake_kernel import FakeKernel  # type: ignore[import-not-found]

from xpmem_emu.backend.processes import boot_one
from xpmem_emu.cluster.topology import ClusterSpec, numbered_partitions
from xpmem_emu.live.partition import main

if __name__ == "__main__":
    if sys.argv[1] == "--config":
        sys.exit(main(FakeKernel, sys.argv[1:]))
    cluster, name = sys.argv[1:]
    sys.exit(
        boot_one(ClusterSpec(cluster, numbered_partitions(2), memory=1 << 20), name, FakeKernel)
    )
