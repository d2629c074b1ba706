"""What a task does: Linux system calls, loads and stores, and libxpmem, under their own names.

Sizes, offsets and addresses are bytes. A refusal raises XpmemError with Linux's errno; an access
that gets a signal raises SigBus or SigSegv. A load or store above 1 MiB travels in pieces: it is
not atomic, and when a piece fails some of the pieces after it may have been carried out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from xpmem_emu.client.failures import XpmemError
from xpmem_emu.client.operations import (
    OperationAnswer,
    OperationRequest,
    Steps,
    ask_for,
    call_once,
    chunks,
    do,
    in_turn,
    operation,
)
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import XPMEM_ERRNO_NOPROC
from xpmem_emu.kernel import calls, device_calls
from xpmem_emu.kernel.calls import MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE, Call

_K = TypeVar("_K")


class TaskOperations(ABC, Generic[_K]):
    """Methods of a task; `K` is what stands for a task, this class's own subclass."""

    pid: int

    @abstractmethod
    def sibling(self, pid: int) -> _K:
        """Another task of the same partition."""

    # -- the task itself -------------------------------------------------------------------

    @operation
    def fork(self) -> Steps[_K]:
        """A child with a copy-on-write copy of the address space."""
        return self.sibling((yield from ask_for(int, calls.Fork(pid=self.pid))))

    @operation
    def execve(self) -> Steps[None]:
        """A fresh address space."""
        yield from do(calls.Exec(pid=self.pid))

    @operation
    def exit(self, status: int = 0) -> Steps[None]:
        """End the task; returns when its address space is gone."""
        yield from do(calls.Exit(pid=self.pid, status=status))

    @operation
    def kill(self, signal: int = 9, reason: str = "kill") -> Steps[None]:
        """Send a signal; returns when a killed task is gone."""
        yield from do(calls.Kill(pid=self.pid, signal=signal, reason=reason))

    @operation
    def setuid(self, uid: int, gids: Sequence[int] = ()) -> Steps[None]:
        """Change the effective uid and the groups."""
        yield from do(calls.Setuid(pid=self.pid, uid=uid, gids=list(gids)))

    # -- memory ----------------------------------------------------------------------------

    @operation
    def mmap(
        self,
        length: int,
        prot: int = PROT_READ | PROT_WRITE,
        flags: int = MAP_PRIVATE | MAP_ANONYMOUS,
        address: int = 0,
        file: str = "",
        offset: int = 0,
    ) -> Steps[int]:
        """Map memory, or `file` of this partition. Result: the address."""
        return (
            yield from ask_for(
                int,
                calls.Mmap(
                    pid=self.pid,
                    length=length,
                    prot=prot,
                    flags=flags,
                    address=address,
                    file=file,
                    offset=offset,
                ),
            )
        )

    @operation
    def munmap(self, address: int, length: int) -> Steps[None]:
        """Unmap a range; importers of its pages lose them first."""
        yield from do(calls.Munmap(pid=self.pid, address=address, length=length))

    @operation
    def mprotect(self, address: int, length: int, prot: int) -> Steps[None]:
        """Change the rights of a range."""
        yield from do(calls.Mprotect(pid=self.pid, address=address, length=length, prot=prot))

    @operation
    def madvise(self, address: int, length: int, advice: int) -> Steps[None]:
        """MADV_DONTNEED, MADV_REMOVE or MADV_PAGEOUT."""
        yield from do(calls.Madvise(pid=self.pid, address=address, length=length, advice=advice))

    @operation
    def mremap(
        self,
        address: int,
        old_length: int,
        new_length: int,
        flags: int = calls.MREMAP_MAYMOVE,
        new_address: int = 0,
    ) -> Steps[int]:
        """Grow, shrink or move a mapping. Result: its address."""
        return (
            yield from ask_for(
                int,
                calls.Mremap(
                    pid=self.pid,
                    address=address,
                    old_length=old_length,
                    new_length=new_length,
                    flags=flags,
                    new_address=new_address,
                ),
            )
        )

    @operation
    def zap_page_range(self, address: int, length: int) -> Steps[None]:
        """Drop the PTEs of a range, attachments included."""
        yield from do(calls.ZapPageRange(pid=self.pid, address=address, length=length))

    @operation
    def migrate(self, address: int, length: int) -> Steps[int]:
        """Move the resident pages of a range to other frames. Result: pages moved."""
        call = calls.Migrate(pid=self.pid, address=address, length=length)
        return (yield from ask_for(int, call))

    @operation
    def load(self, address: int, size: int) -> Steps[bytes]:
        """Read memory as the task would."""
        answers = yield from in_turn(
            OperationRequest(calls.Load(pid=self.pid, address=start, size=part))
            for start, part in chunks(address, size)
        )
        return b"".join(answer.bulk for answer in answers)

    @operation
    def store(self, address: int, data: Buffer) -> Steps[None]:
        """Write memory as the task would."""
        view = memoryview(data).cast("B")
        yield from in_turn(
            OperationRequest(
                calls.Store(pid=self.pid, address=address + done), view[done : done + part]
            )
            for done, part in chunks(0, len(view))
        )

    @operation
    def amo(self, address: int, operation: str, operand: int = 0, compare: int = 0) -> Steps[int]:
        """Atomic operation on an aligned 64-bit word of uncached memory: `fetch`, `add`, `swap`,
        `compare_swap`, `store`. Result: the word before it."""
        return (
            yield from ask_for(
                int,
                calls.AtomicOp(
                    pid=self.pid,
                    address=address,
                    operation=operation,
                    operand=operand,
                    compare=compare,
                ),
            )
        )

    # -- secondary MMUs ----------------------------------------------------------------------

    @operation
    def gru_attach(self) -> Steps[None]:
        """Get a context of the partition's GRU."""
        yield from do(device_calls.GruAttach(pid=self.pid))

    @operation
    def guest_attach(self, references: bool = False) -> Steps[None]:
        """Start a virtual machine, which may hold references to the pages that it shadows."""
        yield from do(device_calls.GuestAttach(pid=self.pid, references=references))

    @operation
    def guest_slot(self, start: int, length: int, address: int = 0) -> Steps[None]:
        """Give the guest memory of the task at guest-physical `start`; length 0 takes it away."""
        call = device_calls.GuestSlot(pid=self.pid, start=start, length=length, address=address)
        yield from do(call)

    @operation
    def mirror_attach(self, address: int, length: int) -> Steps[None]:
        """Let a device mirror a part of the task's memory."""
        yield from do(device_calls.MirrorAttach(pid=self.pid, address=address, length=length))

    @operation
    def device_detach(self, device: str) -> Steps[None]:
        """Give up `gru`, `guest` or `mirror`."""
        yield from do(device_calls.DeviceDetach(pid=self.pid, device=device))

    @operation
    def device_load(self, device: str, address: int, size: int) -> Steps[bytes]:
        """Read memory through a device, at an address of its own."""
        answers = yield from in_turn(
            OperationRequest(
                device_calls.DeviceLoad(pid=self.pid, device=device, address=start, size=part)
            )
            for start, part in chunks(address, size)
        )
        return b"".join(answer.bulk for answer in answers)

    @operation
    def device_store(self, device: str, address: int, data: Buffer) -> Steps[None]:
        """Write memory through a device."""
        view = memoryview(data).cast("B")
        yield from in_turn(
            OperationRequest(
                device_calls.DeviceStore(pid=self.pid, device=device, address=address + done),
                view[done : done + part],
            )
            for done, part in chunks(0, len(view))
        )

    @operation
    def bte_copy(self, source: int, target: int, size: int) -> Steps[None]:
        """Have the block transfer engine copy between two addresses, attachments or own memory. A
        failure is an error that says how many bytes arrived, never a signal."""
        call = device_calls.BteCopy(pid=self.pid, source=source, target=target, size=size)
        yield from do(call)

    # -- libxpmem --------------------------------------------------------------------------

    @operation
    def xpmem_open(self) -> Steps[None]:
        """Open the device; every other xpmem call does it when need be."""
        yield from do(calls.XpmemOpen(pid=self.pid))

    @operation
    def xpmem_close(self) -> Steps[None]:
        """Close the device: all permits are released, all segments removed."""
        yield from do(calls.XpmemClose(pid=self.pid))

    @operation
    def xpmem_make(
        self, vaddr: int, size: int, permit_value: int = 0o600, permit_type: int = 1, name: str = ""
    ) -> Steps[int]:
        """Offer a range of this address space to others. Result: segid."""
        answer = yield from self._xpmem(
            calls.XpmemMake(
                pid=self.pid,
                vaddr=vaddr,
                size=size,
                permit_type=permit_type,
                permit_value=permit_value,
                name=name,
            )
        )
        return int(answer.value)

    @operation
    def xpmem_remove(self, segid: int) -> Steps[None]:
        """Withdraw a segment; every attachment of it loses its pages."""
        yield from self._xpmem(calls.XpmemRemove(pid=self.pid, segid=segid))

    @operation
    def xpmem_get(
        self, segid: int, flags: int = 2, permit_type: int = 1, permit_value: int = 0
    ) -> Steps[int]:
        """Get a permit for a segment: XPMEM_RDWR or XPMEM_RDONLY. Result: apid."""
        answer = yield from self._xpmem(
            calls.XpmemGet(
                pid=self.pid,
                segid=segid,
                flags=flags,
                permit_type=permit_type,
                permit_value=permit_value,
            )
        )
        return int(answer.value)

    @operation
    def xpmem_release(self, apid: int) -> Steps[None]:
        """Give a permit up, with everything attached through it."""
        yield from self._xpmem(calls.XpmemRelease(pid=self.pid, apid=apid))

    @operation
    def xpmem_attach(self, apid: int, offset: int, size: int, vaddr: int = 0) -> Steps[int]:
        """Map part of a segment here. Result: the address."""
        answer = yield from self._xpmem(
            calls.XpmemAttach(pid=self.pid, apid=apid, offset=offset, size=size, vaddr=vaddr)
        )
        return int(answer.value)

    @operation
    def xpmem_detach(self, vaddr: int) -> Steps[None]:
        """Unmap the attachment that `vaddr` lies in."""
        yield from self._xpmem(calls.XpmemDetach(pid=self.pid, vaddr=vaddr))

    @operation
    def xpmem_copy(
        self, source: tuple[int, int], target: tuple[int, int], size: int
    ) -> Steps[None]:
        """Block transfer of `size` bytes between two (apid, offset); contained, not atomic."""
        yield from self._xpmem(
            calls.XpmemCopy(
                pid=self.pid,
                src_apid=source[0],
                src_offset=source[1],
                dst_apid=target[0],
                dst_offset=target[1],
                size=size,
            )
        )

    @operation
    def xpmem_fork_begin(self) -> Steps[None]:
        """Recall everything and hold importers' faults back."""
        yield from self._xpmem(calls.XpmemForkBegin(pid=self.pid))

    @operation
    def xpmem_fork_end(self) -> Steps[None]:
        """Let importers fault again."""
        yield from self._xpmem(calls.XpmemForkEnd(pid=self.pid))

    def _xpmem(self, call: Call) -> Steps[OperationAnswer]:
        """As libxpmem does: a task without xpmem state opens the device, then tries once more."""
        try:
            return (yield from call_once(call))
        except XpmemError as error:
            if error.errno != XPMEM_ERRNO_NOPROC:
                raise
        yield from call_once(calls.XpmemOpen(pid=self.pid))
        return (yield from call_once(call))
