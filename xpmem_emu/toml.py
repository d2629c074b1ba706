"""TOML files that somebody wrote, bounded before they are parsed.

The parser takes time with the square of the parts of a key and recursion with the depth of an
array, so a small file could keep it busy for minutes. A key stands on one line: bounded lines bound
its parts. What is read here is judged by those who know what it should say.
"""

import tomllib
from pathlib import Path
from typing import Any

SIZE_MAX = 1 << 18
"""Characters of a file: a topology of 256 partitions has a fifth of it."""
LINE_MAX = 1000


class TomlError(ValueError):
    """This is not TOML, or more of it than is taken; the text says why and where."""


def read_text(path: Path) -> str:
    """The text of a file. Raises TomlError; OSError where it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(SIZE_MAX + 1)
    except UnicodeDecodeError as error:
        raise TomlError(f"not TOML: {error}") from None


def parse(text: str) -> dict[str, Any]:
    """The tree of a text. Raises TomlError."""
    if len(text) > SIZE_MAX:
        raise TomlError(f"more than {SIZE_MAX} characters are not taken")
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > LINE_MAX:
            raise TomlError(f"line {number}: more than {LINE_MAX} characters are not taken")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(f"not TOML: {error}") from None
    except RecursionError:
        raise TomlError("not TOML of ours: arrays or tables too deep in each other") from None
