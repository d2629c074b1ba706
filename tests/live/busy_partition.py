"""A partition whose kernel is at work for as long as a call says: `describe busy-1500` takes 1.5 s
of one step. For tests of what its peers make of that."""

import sys
import time
from functools import partial

from xpmem_emu.kernel.boot import HANDLERS
from xpmem_emu.kernel.calls import Describe
from xpmem_emu.kernel.interface import Effects, KernelEvent, Request
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.live.partition import main


class Busy(Kernel):
    """Computes where the call says so."""

    def step(self, now_ns: int, event: KernelEvent) -> Effects:
        if isinstance(event, Request) and isinstance(event.call, Describe):
            word, _, milliseconds = event.call.what.partition("-")
            until_s = time.monotonic() + int(milliseconds) / 1e3 if word == "busy" else 0
            while time.monotonic() < until_s:
                pass
        return super().step(now_ns, event)


if __name__ == "__main__":
    sys.exit(main(partial(Busy, handlers=HANDLERS), sys.argv[1:]))
