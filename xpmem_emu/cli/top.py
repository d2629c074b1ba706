"""`top`: how busy each partition is, from what it says of itself, once per interval."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import click

from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.output import Listing, OutputRow, list_options, show_rows, whole
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.cli.watching import INTERVAL, watch

_RATES = {"events": "trace_events", "pins": "pinned_total", "unpins": "unpinned_total"}
"""Columns per second, and the running total that each comes from."""


@dataclass(slots=True)
class Rates:
    """What running totals grew by per second, since the last time they were seen."""

    _seen: dict[str, tuple[float, OutputRow]] = field(default_factory=dict)

    def of(self, name: str, now_s: float, totals: OutputRow) -> dict[str, object]:
        """Rates of partition `name`; none at its first time."""
        before_s, before = self._seen.get(name, (now_s, totals))
        self._seen[name] = now_s, totals
        return {
            f"{column}_per_s": round(_grown(before, totals, key) / (now_s - before_s))
            if now_s > before_s
            else None
            for column, key in _RATES.items()
        }


def _grown(before: OutputRow, after: OutputRow, key: str) -> int:
    return max(0, whole(after, key) - whole(before, key))


def rows(session: CommandSession, rates: Rates) -> list[OutputRow]:
    """One row per partition that answers."""
    found: list[OutputRow] = []
    for name, partition in session.survey():
        status = partition.status()
        peers = status["peers"]
        assert isinstance(peers, Mapping)
        active = sum(peer["state"] == "ACTIVE" for peer in peers.values())
        found.append(
            {
                "partition": name,
                "uptime_ns": status["uptime_ns"],
                "peers": f"{active}/{len(peers)}",
                "tasks": status["tasks"],
                "frames": f"{status['frames_used']}/{status['frames_total']}",
                "pinned": status["pinned_pages"],
                "quarantined": status["quarantined_frames"],
            }
            | rates.of(name, time.monotonic(), status)
        )
    return found


@click.command(cls=Command)
@INTERVAL
@list_options
@pass_session
def top(session: CommandSession, interval: int, output: Listing) -> None:
    """Show how busy the partitions are, again and again until Ctrl-C."""
    rates = Rates()
    watch(lambda: show_rows("top", rows(session, rates), output), interval, output)
