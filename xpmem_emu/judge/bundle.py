"""The result bundle of a run: everything to understand it and to do it again, in one folder.

    result.json  verdict and counts        events.jsonl  the event stream
    diagram.svg  messages, Lamport style   trace.json    for the Perfetto viewer
    replay       the command that does it again

What was run is beside that, as whoever ran it keeps it. `runs/<scenario>/latest` points at the
newest one of a scenario, `runs/latest` at that of all.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from xpmem_emu.judge.perfetto import perfetto_trace
from xpmem_emu.trace import Record

_json = msgspec.json.Encoder(enc_hook=str)


def fill_bundle(
    folder: Path, result: msgspec.Struct, trace: Sequence[Record], diagram: str, replay: str
) -> None:
    """Write what the bundle of every run has. Raises OSError."""
    (folder / "result.json").write_bytes(msgspec.json.format(_json.encode(result), indent=1))
    (folder / "events.jsonl").write_bytes(_json.encode_lines([each.flat() for each in trace]))
    (folder / "diagram.svg").write_text(diagram)
    (folder / "trace.json").write_bytes(_json.encode(perfetto_trace(trace)))
    (folder / "replay").write_text(f"{replay}\n")


@contextmanager
def new_bundle(root: Path, scenario: str) -> Iterator[Path]:
    """A folder for the bundle of a run of `scenario`; `latest` points at it once it is written, and
    when it cannot be, nothing of it is left. Raises OSError."""
    home = root / scenario
    if home.is_symlink():  # a scenario is called latest
        home.unlink()
    folder = home / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _point(home / "latest", folder.name)
    _point(root / "latest", f"{scenario}/{folder.name}")


def _point(link: Path, target: str) -> None:
    if link.is_dir() and not link.is_symlink():
        return
    fresh = link.with_name(f".latest-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)
