"""The words of a step: split, and read as numbers, bytes and names.

    exporter store memory+2p "hello" => ok

A word is text without spaces, or text in quotes; `"ab"*4K` is repeated to that size. A value is a
sum of terms (`memory+2p`), or flags joined by `|`; a term is a number, a size (`2p` is two pages),
a name that an earlier step made, or a constant of the system calls. Nothing here knows a call.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from xpmem_emu.kernel import calls
from xpmem_emu.units import PAGE_SIZE, parse_size

XPMEM_RDONLY, XPMEM_RDWR = 1, 2
CONSTANTS: Mapping[str, int] = {
    name: value
    for name, value in vars(calls).items()
    if name.startswith(("PROT_", "MAP_", "MADV_", "MREMAP_"))
} | {"XPMEM_RDONLY": XPMEM_RDONLY, "XPMEM_RDWR": XPMEM_RDWR}

_TOKEN = re.compile(r'\s*(?:([A-Za-z_]\w*=)?"([^"]*)"(?:\*([\w+|]+))?|([^\s"]+))')
_NAME = re.compile(r"[A-Za-z_]\w*")
_OCTAL = re.compile(r"0[0-7]+")
_PAGES = re.compile(r"(\d+)p")


class Wrong(ValueError):
    """A step that cannot be read: why, and what would be right."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Word:
    """One word. `key` is what stood before its `=`; `quoted` says that it is text."""

    text: str
    key: str = ""
    quoted: bool = False
    repeat: str = ""
    """The size, as a value, that quoted text is repeated to."""


class Actor(NamedTuple):
    """A task: its partition and its pid there."""

    partition: str
    pid: int


Names = Mapping[str, "int | Actor"]
"""What earlier steps made, by the names that they gave it."""


def split(line: str) -> list[Word]:
    """The words of a line. Raises Wrong."""
    return list(_words(line.strip()))


def _words(line: str) -> Iterator[Word]:
    at = 0
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            raise Wrong(f"a quote is not closed in {line[at:].strip()}", "close it")
        at = match.end()
        if match[4] is None:
            yield Word(match[2], (match[1] or "").rstrip("="), True, match[3] or "")
            continue
        key, equals, value = match[4].partition("=")
        keyed = equals and value and _NAME.fullmatch(key) and value[0] not in "=>"
        yield Word(value, key) if keyed else Word(match[4])


def is_name(text: str) -> bool:
    """Whether a step may give this name to something."""
    return bool(_NAME.fullmatch(text)) and text not in CONSTANTS


def near(text: str, known: Collection[str]) -> str:
    """What `text` may have meant: near matches, else everything there is."""
    found = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    return " or ".join(found) if found else ", ".join(sorted(known))


def terms(text: str) -> list[str]:
    """The terms of a value."""
    return re.split(r"[+|]", text)


def used_names(text: str) -> list[str]:
    """The names in a value that an earlier step must have made."""
    return [term for term in terms(text) if is_name(term) and not _PAGES.fullmatch(term)]


def require_value(text: str) -> None:
    """Raises Wrong when `text` cannot be a value, whatever names there will be."""
    for term in terms(text):
        if not is_name(term):
            _term(term, {})


def number(text: str, names: Names) -> int:
    """The number that a value is. Raises Wrong."""
    if "|" in text:
        flags = 0
        for term in terms(text):
            flags |= _term(term, names)
        return flags
    return sum(_term(term, names) for term in terms(text))


def data(word: Word, names: Names) -> bytes:
    """The bytes that a quoted word is. Raises Wrong."""
    if not word.quoted:
        raise Wrong(f"{word.text} is no text", 'text stands in quotes, "like this"')
    text = word.text.encode()
    if not word.repeat:
        return text
    size = number(word.repeat, names)
    if not text:
        raise Wrong("empty text cannot be repeated", 'such as "ab"*4K')
    return (text * (size // len(text) + 1))[:size]


def _term(term: str, names: Names) -> int:
    known = names.get(term)
    if isinstance(known, int):
        return known
    if known is not None:
        raise Wrong(f"{term} is a task, not a number")
    if term in CONSTANTS:
        return CONSTANTS[term]
    pages = _PAGES.fullmatch(term)
    if pages:
        return int(pages[1]) * PAGE_SIZE
    if _NAME.fullmatch(term):
        raise Wrong(f"nothing is called {term}", near(term, [*names, *CONSTANTS]))
    try:
        if _OCTAL.fullmatch(term):
            return int(term, 8)
        return int(term, 16) if term.startswith("0x") else parse_size(term)
    except ValueError:
        raise Wrong(f"{term!r} is no value", "such as 4096, 4K, 2p (pages), 0x1000, 0600") from None
