"""What a client with a key may ask: the table of what takes which capability, and whose task is
whose.

A client without `operate` makes calls only for tasks of its own uid, and what it spawns runs as
that uid and those groups, whatever it claims. What is not in the table takes `operate`, so a new
call is closed until somebody opens it. Clients of unix sockets have no key and may do everything:
the folder of the socket guards those.

Files of the simulated disk have no owners: making and changing them takes `operate`. So does the
audit, which compares every index of the kernel with every other and takes as long as that takes.
"""

import errno
from typing import get_args

import msgspec

from xpmem_emu.client.injection_requests import InjectionRequest, List
from xpmem_emu.cluster.keys import Capability, Client
from xpmem_emu.errors import KernelError
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.call import op_of
from xpmem_emu.kernel.calls import Call
from xpmem_emu.kernel.device_calls import DeviceCall

_LOOKS = (calls.Look, calls.Describe, calls.Pagetable, calls.Status, calls.XpmemVersion)
_USES = (
    calls.Spawn,
    calls.Fork,
    calls.Exec,
    calls.Exit,
    calls.Kill,
    calls.Mmap,
    calls.Munmap,
    calls.Mprotect,
    calls.Madvise,
    calls.Mremap,
    calls.Load,
    calls.Store,
    calls.AtomicOp,
    calls.ZapPageRange,
    calls.XpmemOpen,
    calls.XpmemClose,
    calls.XpmemMake,
    calls.XpmemRemove,
    calls.XpmemGet,
    calls.XpmemRelease,
    calls.XpmemAttach,
    calls.XpmemDetach,
    calls.XpmemCopy,
    calls.XpmemForkBegin,
    calls.XpmemForkEnd,
    calls.XpmemFind,
    *get_args(DeviceCall),
)


def needed(call: Call) -> Capability:
    """What a call takes."""
    if isinstance(call, _LOOKS):
        return Capability.LOOK
    return Capability.USE if isinstance(call, _USES) else Capability.OPERATE


def needed_for_faults(request: InjectionRequest) -> Capability:
    """What a request about faults takes."""
    return Capability.LOOK if isinstance(request, List) else Capability.OPERATE


class Rights:
    """Judges the calls of all clients of one partition."""

    def __init__(self) -> None:
        self._uids: dict[int, int] = {}
        """Of the tasks that clients spawned, by pid. One that died by a signal may stay: pids are
        few and come again."""

    def require(self, client: Client | None, capability: Capability, what: str) -> None:
        """Raises KernelError EPERM unless `client` may do what takes `capability`."""
        if client is not None and not client.capability.covers(capability):
            raise KernelError(
                errno.EPERM,
                f"{what} takes the capability {capability}; this key may {client.capability}",
                f"a key that may: xpmem-emu keys new NAME --capability {capability}",
            )

    def checked(self, client: Client | None, call: Call) -> Call:
        """The call as `client` may make it. Raises KernelError EPERM."""
        if client is None:
            return call
        self.require(client, needed(call), op_of(call))
        if client.capability is Capability.OPERATE:
            return call
        if isinstance(call, calls.Spawn):
            return _as_itself(client, call)
        pid = getattr(call, "pid", None)
        if pid is not None and needed(call) is Capability.USE and self._uids.get(pid) != client.uid:
            raise KernelError(
                errno.EPERM,
                f"{pid} is no task of uid {client.uid}",
                "xpmem-emu get tasks; other tasks take a key that may operate",
            )
        return call

    def account(self, call: Call, value: object) -> None:
        """A call was carried out, with this result."""
        match call:
            case calls.Spawn(uid=uid):
                self._uids[int(str(value))] = uid
            case calls.Fork(pid=parent) if parent in self._uids:
                self._uids[int(str(value))] = self._uids[parent]
            case calls.Setuid(pid=pid, uid=uid):
                self._uids[pid] = uid
            case calls.Exit(pid=pid) | calls.Kill(pid=pid, signal=9):
                self._uids.pop(pid, None)


def _as_itself(client: Client, call: calls.Spawn) -> calls.Spawn:
    """The spawn with the key's uid and groups. Uid 0 and no groups are what a client sends that
    does not say; anything else must be the key's."""
    if call.uid not in (0, client.uid) or not set(call.gids) <= set(client.gids):
        raise KernelError(
            errno.EPERM,
            f"this key spawns tasks of uid {client.uid} and groups {client.gids}, "
            f"not of uid {call.uid} and groups {call.gids}",
            "leave them out, or use a key that may operate",
        )
    if call.cap_ipc_owner and client.uid:
        raise KernelError(
            errno.EPERM, "this key gives no task CAP_IPC_OWNER", "use a key that may operate"
        )
    return msgspec.structs.replace(call, uid=client.uid, gids=call.gids or client.gids)
