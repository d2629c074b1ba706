"""The exporter's side: grants, faults, recalls, and what it checks of accesses by message."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np

from xpmem_emu.xpc.messages import Ack, Release
from xpmem_emu.xpmem.exporter import Exporter
from xpmem_emu.xpmem.pfn_table import PfnTable
from xpmem_emu.xpmem.recall import Recalls


def release_drops_all() -> AbstractContextManager[Any]:
    """A release takes the pages of the partition's other permits too."""

    def greedy(self: Exporter, importer: int, request: Release) -> Ack:
        grant = self.grants.get((importer, request.apid))
        if grant is not None:
            self.firewall.end(grant, "the permit was released")
            self.drop(grant.segment, importer, [(0, grant.segment.pages)])
        return Ack()

    return patch.object(Exporter, "_release", greedy)


def drop_forgets_others() -> AbstractContextManager[Any]:
    """What one holder gives back is taken from all."""
    drop = PfnTable.drop

    def greedy(self: PfnTable, partid: int, page: int, count: int) -> Any:
        freed = [drop(self, other, page, count) for other in sorted(self.holders())]
        return np.concatenate([*freed, drop(self, partid, page, count)])

    return patch.object(PfnTable, "drop", greedy)


def one_range_recalled() -> AbstractContextManager[Any]:
    """Of the ranges that a holder has the first one is recalled."""
    entry = Recalls._entry

    def short(self: Recalls, recall: Any, ranges: Any) -> Any:
        return entry(self, recall, ranges[:1])

    return patch.object(Recalls, "_entry", short)


def remove_without_recall() -> AbstractContextManager[Any]:
    """Removing a segment unpins its pages and tells nobody."""

    async def silent(self: Exporter, segment: Any, reason: str) -> None:
        with patch.object(Recalls, "begin", _give_back):
            self._recalls.begin(segment, (0, segment.pages))
        await remove(self, segment, reason)

    remove = Exporter.remove
    return patch.object(Exporter, "remove", silent)


def _give_back(self: Recalls, segment: Any, pages: Any, going_away: str = "") -> None:
    self.unpin(segment, segment.table.take(*pages).frames)


def wrong_frame_served() -> AbstractContextManager[Any]:
    """Of a run of pages the frames are told one off."""
    hold = PfnTable.hold

    def shifted(self: PfnTable, partid: int, page: int, count: int) -> Any:
        return [
            (first, frame + 1 if length == 1 and frame > 1 else frame, length, flags)
            for first, frame, length, flags in hold(self, partid, page, count)
        ]

    return patch.object(PfnTable, "hold", shifted)
