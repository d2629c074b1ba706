"""Who may do what: permits, attachments, atomic operations, identities."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from xpmem_emu.kernel.tasks import Task
from xpmem_emu.mm import atomic
from xpmem_emu.xpmem import access_server, firewall
from xpmem_emu.xpmem.get import AttachCalls


def everybody_permitted() -> AbstractContextManager[Any]:
    """Modes, owners and groups count for nothing."""
    return patch.object(firewall, "permitted", lambda *given, **named: True)


def readonly_attached() -> AbstractContextManager[Any]:
    """A read-only permit, or one of another task, can be attached."""
    return patch.object(AttachCalls, "_refused", lambda self, process, permit: "")


@contextmanager
def _cached_words() -> Iterator[None]:
    with ExitStack() as stack:
        for module in (atomic, access_server):
            stack.enter_context(patch.object(module, "require_uncached", lambda mm, address: None))
        yield


def cached_words() -> AbstractContextManager[Any]:
    """Atomic operations work on cached memory too."""
    return _cached_words()


def setuid_keeps_capability() -> AbstractContextManager[Any]:
    """Who was root may go on as if it were."""
    become = Task.become

    def stay(self: Task, uid: int, gids: Any) -> None:
        capable = self.cap_ipc_owner
        become(self, uid, gids)
        self.cap_ipc_owner = capable

    return patch.object(Task, "become", stay)
