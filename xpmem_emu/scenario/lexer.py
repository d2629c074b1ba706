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


class ScenarioError(ValueError):
    """A step that cannot be read: why, and what would be right."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Token:
    """One word. `key` is what stood before its `=`; `quoted` says that it is text."""

    text: str
    key: str = ""
    quoted: bool = False
    repeat: str = ""
    """The size, as a value, that quoted text is repeated to."""


class TaskName(NamedTuple):
    """A task: its partition and its pid there."""

    partition: str
    pid: int


Bindings = Mapping[str, "int | TaskName"]
"""What earlier steps made, by the names that they gave it."""


def split(line: str) -> list[Token]:
    """The words of a line. Raises Wrong."""
    return list(_words(line.strip()))


def _words(line: str) -> Iterator[Token]:
    at = 0
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            raise ScenarioError(f"a quote is not closed in {line[at:].strip()}", "close it")
        at = match.end()
        if match[4] is None:
            yield Token(match[2], (match[1] or "").rstrip("="), True, match[3] or "")
            continue
        key, equals, value = match[4].partition("=")
        keyed = equals and value and _NAME.fullmatch(key) and value[0] not in "=>"
        yield Token(value, key) if keyed else Token(match[4])


def is_name(text: str) -> bool:
    """Whether a step may give this name to something."""
    return bool(_NAME.fullmatch(text)) and text not in CONSTANTS


def near(text: str, known: Collection[str]) -> str:
    """What `text` may have meant: near matches, else everything there is."""
    found = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    return " or ".join(found) if found else ", ".join(sorted(known))


def split_terms(text: str) -> list[str]:
    """The terms of a value."""
    return re.split(r"[+|]", text)


def used_names(text: str) -> list[str]:
    """The names in a value that an earlier step must have made."""
    return [term for term in split_terms(text) if is_name(term) and not _PAGES.fullmatch(term)]


def require_value(text: str) -> None:
    """Raises Wrong when `text` cannot be a value, whatever names there will be."""
    for term in split_terms(text):
        if not is_name(term):
            _term(term, {})


def to_number(text: str, names: Bindings) -> int:
    """The number that a value is. Raises Wrong."""
    if "|" in text:
        flags = 0
        for term in split_terms(text):
            flags |= _term(term, names)
        return flags
    return sum(_term(term, names) for term in split_terms(text))


def data(word: Token, names: Bindings) -> bytes:
    """The bytes that a quoted word is. Raises Wrong."""
    if not word.quoted:
        raise ScenarioError(f"{word.text} is no text", 'text stands in quotes, "like this"')
    text = word.text.encode()
    if not word.repeat:
        return text
    size = to_number(word.repeat, names)
    if not text:
        raise ScenarioError("empty text cannot be repeated", 'such as "ab"*4K')
    return (text * (size // len(text) + 1))[:size]


def _term(term: str, names: Bindings) -> int:
    known = names.get(term)
    if isinstance(known, int):
        return known
    if known is not None:
        raise ScenarioError(f"{term} is a task, not a number")
    if term in CONSTANTS:
        return CONSTANTS[term]
    pages = _PAGES.fullmatch(term)
    if pages:
        return int(pages[1]) * PAGE_SIZE
    if _NAME.fullmatch(term):
        raise ScenarioError(f"nothing is called {term}", near(term, [*names, *CONSTANTS]))
    try:
        if _OCTAL.fullmatch(term):
            return int(term, 8)
        return int(term, 16) if term.startswith("0x") else parse_size(term)
    except ValueError:
        raise ScenarioError(
            f"{term!r} is no value", "such as 4096, 4K, 2p (pages), 0x1000, 0600"
        ) from None
