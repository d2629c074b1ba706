"""A partition that takes a peer for dead when a caller is killed, to prove that a loop can see."""

import sys

from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.live.partition import main
from xpmem_emu.sim.mutations.messages import interrupted_expels

if __name__ == "__main__":
    with interrupted_expels():
        sys.exit(main(Kernel, sys.argv[1:]))
