"""A simulated task as tests and workloads use it: system calls under their own names.

Every method is one call, made in virtual time until it ends; a refusal is KernelError, a signal
is Signalled. `begin` makes any call without waiting for it.
"""

from typing import Protocol

from xpmem_emu.codec import Buffer
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.calls import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE, Call
from xpmem_emu.sim.ticket import CallAnswer, Ticket


class Callee(Protocol):
    """What a task needs of a cluster."""

    def submit(self, partid: int, call: Call, bulk: Buffer = b"") -> Ticket:
        """Begin a call now; run the cluster to let it end."""

    def call(self, partid: int, call: Call, bulk: Buffer = b"") -> CallAnswer:
        """Make a call and run until it ends. Raises KernelError, Signalled, Stuck."""


class SimTask:
    """Task `pid` of partition `partid`."""

    def __init__(self, cluster: Callee, partid: int, pid: int) -> None:
        self.cluster = cluster
        self.partid = partid
        self.pid = pid

    def begin(self, call: Call, bulk: Buffer = b"") -> Ticket:
        """Start a call; run the cluster to let it end."""
        return self.cluster.submit(self.partid, call, bulk)

    def _int(self, call: Call) -> int:
        value = self.cluster.call(self.partid, call).value
        assert isinstance(value, int)
        return value

    def _do(self, call: Call, bulk: Buffer = b"") -> None:
        self.cluster.call(self.partid, call, bulk)

    def mmap(
        self,
        length: int,
        prot: int = PROT_READ | PROT_WRITE,
        flags: int = MAP_PRIVATE | MAP_ANONYMOUS,
        address: int = 0,
        file: str = "",
    ) -> int:
        """Map memory; its address."""
        return self._int(calls.Mmap(self.pid, length, prot, flags, address, file))

    def munmap(self, address: int, length: int) -> None:
        """Unmap a range."""
        self._do(calls.Munmap(self.pid, address, length))

    def mprotect(self, address: int, length: int, prot: int) -> None:
        """Change a range's protection."""
        self._do(calls.Mprotect(self.pid, address, length, prot))

    def madvise(self, address: int, length: int, advice: int) -> None:
        """Give advice on a range."""
        self._do(calls.Madvise(self.pid, address, length, advice))

    def load(self, address: int, size: int) -> bytes:
        """The bytes at an address."""
        return bytes(self.cluster.call(self.partid, calls.Load(self.pid, address, size)).bulk)

    def store(self, address: int, data: Buffer) -> None:
        """Write bytes at an address."""
        self._do(calls.Store(self.pid, address), data)

    def fork(self) -> "SimTask":
        """A child task."""
        return SimTask(self.cluster, self.partid, self._int(calls.Fork(self.pid)))

    def exit(self) -> None:
        """End the task."""
        self._do(calls.Exit(self.pid))

    def kill(self, signal: int = 9) -> None:
        """Send a signal."""
        self._do(calls.Kill(self.pid, signal))

    def xpmem_open(self) -> None:
        """Open the device."""
        self._do(calls.XpmemOpen(self.pid))

    def xpmem_make(self, vaddr: int, size: int, mode: int = 0o600) -> int:
        """A new segment's segid."""
        return self._int(calls.XpmemMake(self.pid, vaddr, size, 1, mode))

    def xpmem_remove(self, segid: int) -> None:
        """Remove a segment."""
        self._do(calls.XpmemRemove(self.pid, segid))

    def xpmem_get(self, segid: int, flags: int = 2) -> int:
        """A new permit's apid."""
        return self._int(calls.XpmemGet(self.pid, segid, flags))

    def xpmem_release(self, apid: int) -> None:
        """Release a permit."""
        self._do(calls.XpmemRelease(self.pid, apid))

    def xpmem_attach(self, apid: int, offset: int, size: int, vaddr: int = 0) -> int:
        """A new attachment's address."""
        return self._int(calls.XpmemAttach(self.pid, apid, offset, size, vaddr))

    def xpmem_detach(self, vaddr: int) -> None:
        """Detach the attachment at an address."""
        self._do(calls.XpmemDetach(self.pid, vaddr))
