"""xpmem-emu: a distributed emulator of cross-partition memory.

The public names are those of libxpmem and of the client library; they are loaded on first use,
so that importing a part of the kernel does not pull in the network.
"""

TYPE_CHECKING = False  # that of `typing`, whose import takes longer than all else here
if TYPE_CHECKING:
    from xpmem_emu.client.awaited import AsyncPartition, AsyncTask, connect_async
    from xpmem_emu.client.blocking import Partition, Task, connect
    from xpmem_emu.client.failures import SigBus, SigKill, SigSegv, TaskSignalled, XpmemError

__version__ = "0.1.0"

XPMEM_RDONLY = 0x1
XPMEM_RDWR = 0x2
XPMEM_MAXADDR_SIZE = (1 << 64) - 1
XPMEM_PERMIT_MODE = 0x1

__all__ = [
    "XPMEM_MAXADDR_SIZE",
    "XPMEM_PERMIT_MODE",
    "XPMEM_RDONLY",
    "XPMEM_RDWR",
    "AsyncPartition",
    "AsyncTask",
    "Partition",
    "SigBus",
    "SigKill",
    "SigSegv",
    "Task",
    "TaskSignalled",
    "XpmemError",
    "connect",
    "connect_async",
]

_HOME = {
    "connect": "xpmem_emu.client.blocking",
    "Partition": "xpmem_emu.client.blocking",
    "Task": "xpmem_emu.client.blocking",
    "connect_async": "xpmem_emu.client.awaited",
    "AsyncPartition": "xpmem_emu.client.awaited",
    "AsyncTask": "xpmem_emu.client.awaited",
    "SigBus": "xpmem_emu.client.failures",
    "SigKill": "xpmem_emu.client.failures",
    "SigSegv": "xpmem_emu.client.failures",
    "TaskSignalled": "xpmem_emu.client.failures",
    "XpmemError": "xpmem_emu.client.failures",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'xpmem_emu' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
