"""Rows and records, shown as table, wide, json, jsonl or yaml.

json and yaml are one document with a `schema` field, such as `xpmem-emu/segments/v1`; jsonl is a
stream, one row a line; table and wide are for people. Never two of them mixed. Tables are plain
aligned text and never cut. On a terminal that is too narrow, the columns that do not fit follow on
lines of their own; a pipe, and `-o wide`, have one line for each row.

Ids and addresses need up to 64 bits and JSON readers often keep 53: in documents they are hex
text. What a field holds is told by its name, and only by its name: `*_ns` is a time, `*_bytes`
and `size` a size, the names in `HEX_KEYS` ids, addresses and page-table entries.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import Any, TypeVar

import click

from xpmem_emu.text import UNSEEN, visible
from xpmem_emu.units import format_size, format_span

OutputRow = Mapping[str, object]
_F = TypeVar("_F", bound=Callable[..., object])

HEX_KEYS = frozenset(
    {
        "segid",
        "apid",
        "address",
        "vaddr",
        "pte",
        "incarnation",
        "src_incarnation",
        "dst_incarnation",
    }
)
_PARTIDS = frozenset({"home", "peer"})
_SIZES = frozenset({"size", "length", "memory"})


def whole(row: OutputRow, key: str) -> int:
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


@dataclass(frozen=True, slots=True)
class Listing:
    """How a list is shown. `sort_by`: a field, with `-` before it from the largest down."""

    format: Format = Format.TABLE
    sort_by: str = ""
    headers: bool = True

    @property
    def for_people(self) -> bool:
        return self.format.for_people

    @property
    def is_document(self) -> bool:
        return self.format.is_document


def list_options(command: Callable[..., object]) -> Callable[..., object]:
    """Gives a command that lists things `-o`, `--sort-by` and `--no-headers`, passed on as one
    Listing, `output`."""

    @wraps(command)
    def with_listing(
        *args: object, output: Format, sort_by: str, headers: bool, **rest: object
    ) -> object:
        return command(*args, output=Listing(output, sort_by, headers), **rest)

    for option in (
        click.option(
            "--no-headers",
            "headers",
            is_flag=True,
            flag_value=False,
            default=True,
            help="Leave the titles of a table out.",
        ),
        click.option(
            "--sort-by",
            default="",
            metavar="FIELD",
            help="By a column or field; -FIELD from the largest down.",
        ),
        output_option,
    ):
        with_listing = option(with_listing)
    return with_listing


def output_option(command: _F) -> _F:
    """Gives a command `-o FORMAT`, passed on as `output`."""
    return click.option(
        "-o",
        "--output",
        default="table",
        show_default=True,
        help="How to show the result.",
        type=click.Choice([each.value for each in Format]),
        callback=lambda _ctx, _option, value: Format(value),
    )(command)


def refuse_document(output: Format | Listing, reason: str) -> None:
    """A stream cannot be one document. Raises UsageError."""
    if output.is_document:
        name = _listing(output).format.value
        raise click.UsageError(f"{name} is one document and {reason} has no end; use -o jsonl")


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


def _json(tree: object, **style: Any) -> str:
    """JSON escapes what ends a line; here is the rest of what a terminal would obey."""
    import json

    lines = json.dumps(tree, ensure_ascii=False, **style).split("\n")
    return "\n".join(UNSEEN.sub(lambda one: f"\\u{ord(one.group()):04x}", each) for each in lines)


def _yaml(tree: object) -> str:
    import yaml

    document = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    if any(map(UNSEEN.search, document.split("\n"))):
        document = yaml.safe_dump(tree, sort_keys=False)
    return document.rstrip()


def _document(kind: str, body: OutputRow, output: Format) -> str:
    tree = {"schema": f"xpmem-emu/{kind}/v1"} | {k: plain(v, k) for k, v in body.items()}
    if output is Format.YAML:
        return _yaml(tree)
    return _json(tree, indent=2)


def json_line(row: OutputRow) -> str:
    """One row of a jsonl stream."""
    return _json(plain(row), separators=(",", ":"))


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
        return " ".join(f"{visible(str(k))}={cell(str(k), v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ",".join(cell(key, each) for each in value)
    return visible(str(value))


def _number(key: str, value: int) -> str:
    if key in HEX_KEYS:
        return f"{value:#x}" if value else "-"
    if key in _PARTIDS:
        return f"p{value}"
    if key.endswith("_ns"):
        return format_span(value)
    if key in _SIZES or key.endswith("_bytes"):
        return format_size(value)
    return str(value)


def _label(key: str) -> str:
    """What field `key` is called; its unit is in the cells."""
    return visible(key.removesuffix("_ns").removesuffix("_bytes"))


def title(key: str) -> str:
    """The column title of field `key`."""
    return _label(key).replace("_", " ").upper()


def grid(
    rows: Sequence[OutputRow], keys: Sequence[str], headers: bool = True, width: int | None = None
) -> str:
    """Aligned columns under titles, numbers to the right. Columns beyond `width` follow on lines
    of their own, indented."""
    cells = [[title(key) for key in keys]] if headers else []
    cells += [[cell(key, row.get(key)) for key in keys] for row in rows]
    widths = [max((len(line[i]) for line in cells), default=0) for i in range(len(keys))]
    right = [bool(rows) and all(_counts(key, row.get(key)) for row in rows) for key in keys]
    aligned = [
        [
            text.rjust(each) if to_right else text.ljust(each)
            for text, each, to_right in zip(line, widths, right, strict=True)
        ]
        for line in cells
    ]
    groups = _folded(widths, width)
    return "\n".join(
        (_FOLD if start else "") + _GAP.join(line[start:end]).rstrip()
        for line in aligned
        for start, end in groups
    )


_GAP, _FOLD = "  ", "    "
_UNKNOWN_WIDTH = 80


def _folded(widths: Sequence[int], width: int | None) -> list[tuple[int, int]]:
    """Which columns stand on a line together: as many as fit, at least one."""
    groups = [(0, 0)]
    used = -len(_GAP)
    for column, needed in enumerate(widths):
        used += len(_GAP) + needed
        if width is not None and used > width and column > groups[-1][0]:
            groups.append((column, column))
            used = len(_FOLD) + needed
        groups[-1] = groups[-1][0], column + 1
    return groups


def _counts(key: str, value: object) -> bool:
    named = key in HEX_KEYS or key in _PARTIDS
    return isinstance(value, int) and not isinstance(value, bool) and not named


def outline(record: OutputRow, indent: int = 0) -> str:
    """A record as `key: value` lines, nested mappings indented, lists of mappings as tables."""
    width = max((len(_label(key)) for key in record), default=0) + 2
    lines: list[str] = []
    for key, value in record.items():
        label = " " * indent + f"{_label(key)}:"
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


def show_rows(
    kind: str, rows: Sequence[OutputRow], output: Format | Listing, narrow: Sequence[str] = ()
) -> str:
    """A list of objects. `narrow` are the fields of a table, all of them where it is empty; in
    wide they come first. Raises UsageError for a field to sort by that is none."""
    listing = _listing(output)
    rows = _sorted(rows, listing.sort_by)
    if listing.format is Format.JSONL:
        return "\n".join(json_line(row) for row in rows)
    if listing.is_document:
        return _document(kind, {"items": list(rows)}, listing.format)
    keys = dict.fromkeys(narrow)
    folded = listing.format is Format.TABLE
    if not (folded and narrow):
        keys |= {key: None for row in rows for key in row}
    return grid(rows, list(keys), listing.headers, _terminal_width() if folded else None)


def _listing(output: Format | Listing) -> Listing:
    return output if isinstance(output, Listing) else Listing(output)


def _terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None: it is none, and anything fits."""
    if not sys.stdout.isatty():
        return None
    # As shutil does, which takes every kind of archive along.
    named = os.environ.get("COLUMNS", "")
    known = int(named) if named.isdecimal() else 0
    return known or os.get_terminal_size(sys.stdout.fileno()).columns or _UNKNOWN_WIDTH


def _sorted(rows: Sequence[OutputRow], by: str) -> Sequence[OutputRow]:
    if not by or not rows:
        return rows
    wanted = _plainly(by.removeprefix("-"))
    keys = {_plainly(each): key for row in rows for key in row for each in (_label(key), key)}
    if wanted not in keys:
        known = ", ".join(dict.fromkeys(keys.values()))
        raise click.UsageError(f"there is no field {by!r} to sort by; one of {known}")
    key = keys[wanted]

    def rank(row: OutputRow) -> tuple[bool, float, str]:
        value = row.get(key)
        number = value if isinstance(value, int | float) else 0
        return value is None, number, cell(key, value)

    return sorted(rows, key=rank, reverse=by.startswith("-"))


def _plainly(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "_")


def show_record(kind: str, record: OutputRow, output: Format) -> str:
    """One object. An outline, where it is for people."""
    if output is Format.JSONL:
        return json_line(record)
    if output.is_document:
        return _document(kind, record, output)
    return outline(record)
