"""Where a kernel is put together: only here are the kernel, its handlers and its audit known."""

from xpmem_emu.image import Image
from xpmem_emu.kernel.audit import check_kernel
from xpmem_emu.kernel.handlers import breaking, devices, files, look, memory, tasks, xpmem
from xpmem_emu.kernel.kernel import Kernel, PeerMemory
from xpmem_emu.xpc.peers import Peers

HANDLERS = {
    **tasks.HANDLERS,
    **memory.HANDLERS,
    **files.HANDLERS,
    **xpmem.HANDLERS,
    **devices.HANDLERS,
    **look.HANDLERS,
    **breaking.HANDLERS,
}
"""Every call that a kernel serves, and the function that does."""


def boot_kernel(
    *,
    partid: int,
    boot: int,
    image: Image,
    arena: memoryview,
    swap: memoryview,
    peers: Peers,
    peer_memory: PeerMemory,
    audits: bool = False,
) -> Kernel:
    """A kernel that has just booted and waits for its first step. With `audits` every index and
    count is compared after each step in which something happened: slow, and a difference panics."""
    return Kernel(
        partid=partid,
        boot=boot,
        image=image,
        arena=arena,
        swap=swap,
        peers=peers,
        peer_memory=peer_memory,
        handlers=HANDLERS,
        audit=check_kernel if audits else None,
    )
