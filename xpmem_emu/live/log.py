"""The log of a partition: one JSON object a line, on stderr.

A partition logs a dozen kinds of things, all of them the same way. structlog would do it, and be a
fifth of all that a partition imports before it boots: whoever starts a cluster waits for that.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, get_args

Level = Literal["debug", "info", "warning", "error"]

_LEVELS: tuple[Level, ...] = get_args(Level)
_place: dict[str, object] = {}
_least: Level = "info"


def begin(place: Mapping[str, object], least: Level) -> None:
    """From now on every line has these facts, and what is less than `least` is not written."""
    global _least
    _least = least
    _place.clear()
    _place.update(place)


def debug(event: str, **facts: object) -> None:
    """What only helps to find a mistake."""
    _write("debug", event, facts)


def info(event: str, **facts: object) -> None:
    """What happens in the life of a partition."""
    _write("info", event, facts)


def warning(event: str, **facts: object) -> None:
    """What somebody should know of; the partition is well."""
    _write("warning", event, facts)


def error(event: str, **facts: object) -> None:
    """What the partition cannot do."""
    _write("error", event, facts)


def _write(level: Level, event: str, facts: Mapping[str, object]) -> None:
    if _LEVELS.index(level) < _LEVELS.index(_least):
        return
    when = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = {**_place, **facts, "event": event, "level": level, "timestamp": when}
    # In one piece: lines of several processes may go to one file.
    sys.stderr.write(json.dumps(line, default=str) + "\n")
    sys.stderr.flush()
