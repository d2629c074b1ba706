"""What is done about a lost importer: quarantine, migration, proof."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np

from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.xpmem.fence import Fence


def no_quarantine() -> AbstractContextManager[Any]:
    """No reference is taken on the frames of a lost importer."""
    return patch.object(Fence, "_keep", lambda self, *where: None)


def no_migration() -> AbstractContextManager[Any]:
    """The fence finds nothing to move."""
    return patch.object(Fence, "_in_use", lambda self, vectors: np.zeros(0, dtype=np.int64))


def quarantine_without_proof() -> AbstractContextManager[Any]:
    """The end of a session counts as proof that its process is gone."""
    begin = Fence.begin

    def trusting(self: Fence, importer: int, incarnation: int, reason: str) -> None:
        begin(self, importer, incarnation, reason)
        self.prove_left(importer, incarnation, "because")

    return patch.object(Fence, "begin", trusting)


def boot_is_proof() -> AbstractContextManager[Any]:
    """A new boot of a partition counts as the end of the process before."""
    partition_up = Kernel.partition_up

    def trusting(self: Kernel, partid: int, page: Any, incarnation: int) -> None:
        partition_up(self, partid, page, incarnation)
        for boot in range(1, incarnation >> 16):
            self.xpmem.fence.prove_gone(partid, boot, "a new boot is here")

    return patch.object(Kernel, "partition_up", trusting)


def fence_not_waited_for() -> AbstractContextManager[Any]:
    """Who took pages away returns before a lost importer is cut off from them."""

    async def at_once(self: Fence, group: Any, start: int, end: int) -> None:
        return None

    return patch.object(Fence, "passed", at_once)


def recalled_pages_not_fenced() -> AbstractContextManager[Any]:
    """What is being recalled from a lost importer is not kept from it."""
    retire = Fence._retire

    def forgetful(self: Fence, session: Any, segment: Any) -> None:
        recalls, segment.recalls = segment.recalls, []
        try:
            retire(self, session, segment)
        finally:
            segment.recalls = recalls

    return patch.object(Fence, "_retire", forgetful)
