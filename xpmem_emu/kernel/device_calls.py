"""Calls about the secondary MMUs of a task (sources T13, T14) and the block transfer engine:
docs/laboratory.md.

Addresses are the task's, but for those at which a guest is accessed.
"""

from typing import Annotated

from msgspec import Meta

from xpmem_emu.fields import U64, Pid, ShortText
from xpmem_emu.kernel.call import Returns

DEVICES = ("gru", "guest", "mirror")
"""What a `device` may be."""


class GruAttach(Returns[None], frozen=True):
    """Gives the task a context of its partition's GRU. EEXIST, EBUSY."""

    pid: Pid


class GuestAttach(Returns[None], frozen=True):
    """Starts a virtual machine in the task; without slots it has no memory. With `references` it
    holds a reference to each page that it shadows. EEXIST."""

    pid: Pid
    references: bool = False


class GuestSlot(Returns[None], frozen=True):
    """Guest-physical memory from `start` on is the task's from `address` on; with length 0 the
    slot that begins at `start` goes. Whole pages."""

    pid: Pid
    start: U64
    length: U64
    address: U64 = 0


class MirrorAttach(Returns[None], frozen=True):
    """A device mirrors this part of the task's memory; whole pages. EEXIST."""

    pid: Pid
    address: U64
    length: U64


class DeviceDetach(Returns[None], frozen=True):
    """ENODEV when the task has none."""

    pid: Pid
    device: ShortText


class DeviceLoad(Returns[None], frozen=True):
    """Reads memory through a device, at an address of the device's own. A failure is an errno, not
    a signal: EFAULT, EIO (machine check), EAGAIN. The bytes come as bulk."""

    pid: Pid
    device: ShortText
    address: U64
    size: Annotated[int, Meta(ge=0, le=1 << 26)]


class DeviceStore(Returns[None], frozen=True):
    """Writes the call's bulk to memory through a device. Fails as DeviceLoad."""

    pid: Pid
    device: ShortText
    address: U64


class BteCopy(Returns[None], frozen=True):
    """The block transfer engine copies `size` bytes between two addresses of the task (sources
    T18): attachments or its own memory. A failure is an errno, never a signal of what is there:
    EFAULT, EIO (machine check), ENOENT, EACCES, ETIMEDOUT, EAGAIN, EHOSTDOWN; its cause says how
    many bytes arrived."""

    pid: Pid
    source: U64
    target: U64
    size: U64


DeviceCall = (
    GruAttach | GuestAttach | GuestSlot | MirrorAttach | DeviceDetach | DeviceLoad | DeviceStore
    | BteCopy
)  # fmt: skip
"""Every one of them."""
