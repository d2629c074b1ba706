"""The importer's side: entries, what is known, attachments, calls that were killed."""

import errno
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from xpmem_emu.errors import KernelError, Signalled
from xpmem_emu.xpmem.importer import Importer
from xpmem_emu.xpmem.module import Xpmem
from xpmem_emu.xpmem.objects import Attachment


def table_remembers() -> AbstractContextManager[Any]:
    """A recall clears the entries; what is known of the frames stays known."""
    zap = Importer._zap

    def keeping(self: Importer, imported: Any, ranges: Any) -> int:
        with patch.object(type(imported.table), "take", lambda self, page, count: None):
            return zap(self, imported, ranges)

    return patch.object(Importer, "_zap", keeping)


def late_replies_kept() -> AbstractContextManager[Any]:
    """What a peer did for a call that was killed meanwhile is not undone."""
    return patch.object(Xpmem, "late_reply", lambda self, partid, request, reply: None)


def removed_words_refused() -> AbstractContextManager[Any]:
    """An atomic operation where the exporter has nothing is an errno, not a signal."""
    amo = Xpmem.amo

    async def refusing(self: Xpmem, *args: Any) -> int:
        try:
            return await amo(self, *args)
        except Signalled as signalled:
            raise KernelError(errno.ENOENT, signalled.info.reason) from None

    return patch.object(Xpmem, "amo", refusing)


def detach_takes_strangers() -> AbstractContextManager[Any]:
    """A detach unmaps all that lies where its attachment was."""
    return patch.object(Attachment, "owns", lambda self, vma: True)


def give_back_what_others_show() -> AbstractContextManager[Any]:
    """A detach gives pages back that another attachment still shows."""
    give_back = Importer._give_back

    def greedy(self: Importer, attachment: Any) -> Any:
        everything = dict(attachment.imported.attachments)
        attachment.imported.attachments.clear()
        try:
            return give_back(self, attachment)
        finally:
            attachment.imported.attachments.update(everything)

    return patch.object(Importer, "_give_back", greedy)
