"""A partition that takes a peer for dead when a caller is killed, to prove that a loop can see."""

import sys

from xpmem_emu.kernel.boot import boot_kernel
from xpmem_emu.live.partition import main
from xpmem_emu.sim.mutations.messages import interrupted_expels

if __name__ == "__main__":
    with interrupted_expels():
        sys.exit(main(boot_kernel, sys.argv[1:]))
