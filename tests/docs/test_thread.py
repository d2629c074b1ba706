"""Each row of docs/thread.md names modules, tests and experiments that exist, and figures that the
experiments gave."""

import re
from pathlib import Path

import pytest

from tests.test_semantics import functions
from xpmem_emu.lab.registry import experiment_names
from xpmem_emu.lab.report import section_of

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split(" | ")]
    for line in (ROOT / "docs" / "thread.md").read_text().splitlines()
    if line.startswith("| [")
]
PROOF = re.compile(r"`((?:tests|partitions)/[\w/-]+\.(?:py|toml))(?:::(\w+))?`")
EXPERIMENT = re.compile(r"`lab run ([\w-]+)`")
FIGURE = re.compile(r"\d[\d,.]*(?:(?:ns|us|ms|s|K|M)\b| %)?")


def test_there_is_one_row_for_each_entry() -> None:
    entries = [f"[sources T{number}](sources.md#T{number})" for number in range(1, 25)]
    assert [row[0] for row in ROWS] == entries
    assert all(len(row) == 5 and all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0].partition("#")[2].rstrip(")")))
def test_what_a_row_names_is_there(row: list[str]) -> None:
    _, _, modules, shown, figure = row
    for path in re.findall(r"`([^`]+)`", modules):
        assert (ROOT / path).is_file(), path
    proofs, experiments = PROOF.findall(shown), EXPERIMENT.findall(shown)
    assert proofs or experiments
    for path, name in proofs:
        assert (ROOT / path).is_file(), path
        assert not name or name in functions(ROOT / path), f"{path}::{name}"
    assert set(experiments) <= set(experiment_names())
    page = (ROOT / "docs" / "lab.md").read_text()
    sections = " ".join(section_of(page, name) for name in experiments)
    for number in FIGURE.findall(figure) if experiments else ():
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d.,]*\d)", sections), number
    assert "not built" not in " ".join(row)
