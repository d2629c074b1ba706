"""Rows as tables of a page."""

from collections.abc import Sequence

from xpmem_emu.lab.experiment import LabRow
from xpmem_emu.units import format_size, format_span


def column_title(column: str) -> str:
    """What a column is called; its unit is in the cells."""
    return column.removesuffix("_ns").removesuffix("_bytes").replace("_", " ")


def lab_cell(column: str, value: int | str) -> str:
    """A value as people read it."""
    if isinstance(value, str):
        return value
    if column.endswith("_ns"):
        return format_span(value)
    return format_size(value) if column.endswith("_bytes") else f"{value:,}"


def markdown_table(rows: Sequence[LabRow]) -> str:
    """A table in Markdown, numbers to the right."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numbers = [all(isinstance(row.get(column, 0), int) for row in rows) for column in columns]
    lines = [
        [column_title(column) for column in columns],
        ["---:" if right else "---" for right in numbers],
        *([lab_cell(column, row.get(column, "")) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
