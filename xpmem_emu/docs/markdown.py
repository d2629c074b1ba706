"""Lists in pages of docs/ that are written from declarations: the page keeps its text, the table
behind each marker `<!-- name -->` is replaced."""

import re
from collections.abc import Mapping, Sequence


def refill(page: str, tables: Mapping[str, str]) -> str:
    """`page` with the table behind each marker as `tables` has it."""
    for marker, table in tables.items():
        pattern = rf"<!-- {marker} -->\n(?:\n\|[^\n]*(?:\n\|[^\n]*)*\n)?"
        # Backslashes of the table are its own, not the substitution's.
        block = f"<!-- {marker} -->\n\n{table}\n".replace("\\", r"\\")
        page = re.sub(pattern, block, page)
    return page


def table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table, its cells escaped."""
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join("|" + "|".join(_cell(text) for text in line) + "|" for line in lines)


def _cell(text: str) -> str:
    return text if text == "---" else f" {text.replace('|', chr(92) + '|')} "
