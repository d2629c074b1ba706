"""Rows and records, shown as table, wide, json, jsonl or yaml.

json and yaml are one document with a `schema` field, such as `xpmem-emu/segments/v1`; jsonl is a
stream, one row a line; table and wide are for people. Never two of them mixed. Tables are plain
aligned text, never cut or wrapped, so that a pipe sees what a person sees.

Ids and addresses need up to 64 bits and JSON readers often keep 53: in documents they are hex
text. What a field holds is told by its name, and only by its name: `*_ns` is a time, `*_bytes`
and `size` a size, the names in `HEX_KEYS` ids, addresses and page-table entries.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import click
import yaml

from xpmem_emu.units import format_size, format_time

Row = Mapping[str, object]
F = TypeVar("F", bound=Callable[..., object])

HEX_KEYS = frozenset(
    {"segid", "apid", "address", "vaddr", "pte", "incarnation", "src_incarnation",
     "dst_incarnation"}
)  # fmt: skip
_PARTIDS = frozenset({"home", "peer"})
_SIZES = frozenset({"size", "length", "memory"})


def whole(row: Row, key: str) -> int:
    """The number in a field that holds one."""
    value = row[key]
    assert isinstance(value, int)
    return value


class Format(StrEnum):
    """What `-o` accepts."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"

    @property
    def for_people(self) -> bool:
        """Whether this is text to read rather than to parse."""
        return self in (Format.TABLE, Format.WIDE)

    @property
    def is_document(self) -> bool:
        """Whether the output is one document, which a stream can never be."""
        return self in (Format.JSON, Format.YAML)


def output_option(command: F) -> F:
    """Gives a command `-o FORMAT`, passed on as `output`."""
    return click.option(
        "-o", "--output", default="table", show_default=True, help="How to show the result.",
        type=click.Choice([each.value for each in Format]),
        callback=lambda _ctx, _option, value: Format(value),
    )(command)  # fmt: skip


def refuse_document(output: Format, reason: str) -> None:
    """A stream cannot be one document. Raises UsageError."""
    if output.is_document:
        raise click.UsageError(f"{output.value} is one document and {reason} has no end; "
                               "use -o jsonl")


# -- machine-readable --------------------------------------------------------------------------


def plain(value: object, key: str = "") -> object:
    """`value` as builtins, ids and addresses as hex text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, key) for each in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return f"{value:#x}" if key in HEX_KEYS else int(value)
    return value if isinstance(value, float) else str(value)


def _document(kind: str, body: Row, output: Format) -> str:
    tree = {"schema": f"xpmem-emu/{kind}/v1"} | {k: plain(v, k) for k, v in body.items()}
    if output is Format.YAML:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).rstrip()
    return json.dumps(tree, indent=2, ensure_ascii=False)


def json_line(row: Row) -> str:
    """One row of a jsonl stream."""
    return json.dumps(plain(row), ensure_ascii=False, separators=(",", ":"))


# -- for people --------------------------------------------------------------------------------


def cell(key: str, value: object) -> str:
    """`value` of field `key` as people read it; nothing is a dash."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _number(key, value)
    if isinstance(value, Mapping):
        return " ".join(f"{k}={cell(str(k), v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ",".join(cell(key, each) for each in value)
    return str(value)


def _number(key: str, value: int) -> str:
    if key in HEX_KEYS:
        return f"{value:#x}" if value else "-"
    if key in _PARTIDS:
        return f"p{value}"
    if key.endswith("_ns"):
        return format_time(value)
    if key in _SIZES or key.endswith("_bytes"):
        return format_size(value)
    return str(value)


def title(key: str) -> str:
    """The column title of field `key`; the unit is in the cells."""
    return key.removesuffix("_ns").removesuffix("_bytes").replace("_", " ").upper()


def grid(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """Aligned columns under titles, numbers to the right."""
    cells = [[title(key) for key in keys]]
    cells += [[cell(key, row.get(key)) for key in keys] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    right = [bool(rows) and all(_counts(key, row.get(key)) for row in rows) for key in keys]
    return "\n".join(
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def _counts(key: str, value: object) -> bool:
    named = key in HEX_KEYS or key in _PARTIDS
    return isinstance(value, int) and not isinstance(value, bool) and not named


def outline(record: Row, indent: int = 0) -> str:
    """A record as `key: value` lines, nested mappings indented, lists of mappings as tables."""
    width = max((len(key) for key in record), default=0) + 2
    lines: list[str] = []
    for key, value in record.items():
        label = " " * indent + f"{key}:"
        if isinstance(value, Mapping) and value:
            lines += [label, outline(value, indent + 2)]
        elif _is_table(value):
            lines += [label, _table_of(value, indent + 2)]
        else:
            lines.append(label.ljust(indent + width) + cell(key, value))
    return "\n".join(lines)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _table_of(value: object, indent: int) -> str:
    assert isinstance(value, list)
    text = grid(value, list(value[0]))
    return "\n".join(" " * indent + line for line in text.splitlines())


# -- the two shapes of a result ----------------------------------------------------------------


def show_rows(kind: str, rows: Sequence[Row], output: Format, narrow: Sequence[str] = ()) -> str:
    """A list of objects. `narrow` are the fields of a table, all of them where it is empty."""
    if output is Format.JSONL:
        return "\n".join(json_line(row) for row in rows)
    if output.is_document:
        return _document(kind, {"items": list(rows)}, output)
    keys: Iterable[str] = {key: None for row in rows for key in row}
    if output is Format.TABLE and narrow:
        keys = narrow
    return grid(rows, list(keys) or list(narrow))


def show_record(kind: str, record: Row, output: Format) -> str:
    """One object."""
    if output is Format.JSONL:
        return json_line(record)
    if output.is_document:
        return _document(kind, record, output)
    return outline(record)
