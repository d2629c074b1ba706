"""The lists in docs/faults.md, made from the declarations.

`python -m xpmem_emu.cli.faults_page docs/faults.md` writes them. The page keeps its text; the
table behind each marker is replaced. A test compares the page with what this module makes.
"""

import re
import sys
from pathlib import Path

from xpmem_emu.errors import errno_name
from xpmem_emu.fabric.faults import OTHER_GISTS
from xpmem_emu.fabric.grammar_values import FIELDS
from xpmem_emu.fabric.rules import MEMBERSHIPS, SIGNATURES
from xpmem_emu.failpoints import POINTS


def fill(page: str) -> str:
    """`page` with every list as it should be."""
    for marker, table in _tables().items():
        pattern = rf"<!-- {marker} -->\n(?:\n\|[^\n]*(?:\n\|[^\n]*)*\n)?"
        # Backslashes of the table are its own, not the substitution's.
        block = f"<!-- {marker} -->\n\n{table}\n".replace("\\", r"\\")
        page = re.sub(pattern, block, page)
    return page


def _tables() -> dict[str, str]:
    return {
        "verdicts": _table(
            ("form", "does"),
            [
                (f"`{form}`", signature.gist)
                for verdict, signature in SIGNATURES.items()
                for form in [_form(verdict.value, signature.position, signature.options)]
            ],
        ),
        "memberships": _table(
            ("kind", "who still reaches whom"),
            [(f"`{kind.value}`", gist) for kind, gist in MEMBERSHIPS.items()],
        ),
        "others": _table(("form", "does"), [(f"`{k}`", v) for k, v in OTHER_GISTS.items()]),
        "failpoints": _table(
            ("point", "context", "fails with", "what happens there"),
            [
                (
                    f"`{point.name}`",
                    point.context.value,
                    errno_name(point.errno) if point.errno else "-",
                    point.gist,
                )
                for point in POINTS.values()
            ],
        ),
    }


def _form(verdict: str, position: str, options: tuple[str, ...]) -> str:
    words = [verdict, FIELDS[position].shown] if position else [verdict]
    words += [f"[--{FIELDS[name].option} {FIELDS[name].shown}]" for name in options]
    return " ".join(words)


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join("|" + "|".join(_cell(text) for text in line) + "|" for line in lines)


def _cell(text: str) -> str:
    return text if text == "---" else f" {text.replace('|', chr(92) + '|')} "


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(fill(target.read_text()))
