"""Golden transcripts: what the kernels do, word for word, under a staged order of messages.

UPDATE_TRANSCRIPTS=1 writes what they do now; read the difference before you commit it.
"""

import os
from pathlib import Path

import pytest

from tests.transcripts.stage import Stage
from xpmem_emu.xpmem.objects import InFlight

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.glob("*.txt"))


def perform(script: Path) -> str:
    """The transcript as it turns out now."""
    stage = Stage("AB" if "across" in script.stem else "AAA" if "three" in script.stem else "AA")
    lines: list[str] = []
    for line in script.read_text().splitlines():
        if line.startswith("> "):
            lines += [line, *stage.play(line[2:])]
        elif line.startswith("#") or not line:
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_transcript(script: Path) -> None:
    now = perform(script)
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        script.write_text(now)
    assert now == script.read_text()


def test_without_the_mark_on_its_page_the_race_exposes_a_strangers_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(InFlight, "spoil", lambda self, pages: False)
    script = HERE / "inflight_race.txt"
    now = perform(script)
    assert now != script.read_text()
    assert "importer load: b'stranger'" in now
