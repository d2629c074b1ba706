"""A partition whose fence moves nothing away, to prove that the fence loop can see."""

import sys
from collections.abc import Iterable

import numpy as np

from xpmem_emu.kernel.boot import boot_kernel
from xpmem_emu.live.partition import main
from xpmem_emu.xpmem.extents import Vector
from xpmem_emu.xpmem.fence import Fence


def nothing(fence: Fence, vectors: Iterable[Vector]) -> Vector:
    """In place of the frames that are still in use."""
    return np.zeros(0, dtype=np.int64)


if __name__ == "__main__":
    Fence._in_use = nothing  # type: ignore[method-assign, assignment]
    sys.exit(main(boot_kernel, sys.argv[1:]))
