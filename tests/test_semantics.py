"""Every claim of docs/semantics.md names a proof that exists."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.xpmem.api_rows import TABLE

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "semantics.md").read_text()
PROOF = re.compile(
    r"`(tests/[\w/]+\.(?:py|txt)|partitions/scenarios/[\w-]+\.toml)(?:::(\w+)(?:\[([^\]]*)\])?)?`"
)


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_proof_exists() -> None:
    proofs = PROOF.findall(TEXT)
    assert len(proofs) > 50
    missing = [
        f"{file}::{name}"
        for file, name, _ in proofs
        if not (ROOT / file).is_file() or (name and name not in functions(ROOT / file))
    ]
    assert missing == []


def test_every_row_that_is_named_is_in_the_table() -> None:
    rows = {f"{group}: {what}" for group, table in TABLE.items() for what, _, _ in table}
    rows |= {what for group in TABLE.values() for what, _, _ in group}
    named = [row for _, name, row in PROOF.findall(TEXT) if name == "test_api"]
    assert [row for row in named if row not in rows] == []


def test_every_table_row_has_a_proof() -> None:
    tables = [line for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line]
    headers = {line for line in tables if line.rstrip().endswith("| proof |")}
    bare = [line for line in tables if line not in headers and not PROOF.search(line)]
    assert bare == []
