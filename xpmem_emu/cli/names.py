"""What the partitions of a cluster are called: by the names of its topology or by their numbers.

People may type either, `a0` or `p0` or `0`, wherever a partition is meant; they are shown the
topology's name. Kernels know numbers only: what they report says p0, and is said in names here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.text import numbered

if TYPE_CHECKING:
    from xpmem_emu.inject.rules import Partids

_NUMBER = re.compile(r"p?(\d{1,4})")
_SPAN = re.compile(r"p?(\d{1,4})-p?(\d{1,4})")
_MENTION = re.compile(r"\bp(\d{1,4})\b")
_PARTIDS = frozenset({"home", "peer", "peers", "importer", "holder", "holders", "src", "dst"})
_TEXTS = frozenset({"importer", "place", "reason", "last_failure", "last_signal"})


@dataclass(frozen=True)
class Names:
    """The partitions of `cluster`: their partids by name."""

    cluster: str
    partids: Mapping[str, int]

    def find(self, text: str) -> str | None:
        """The name of the partition that `text` means, None when there is none. A name counts
        before a number: a topology may call partition 1 p0."""
        number = _NUMBER.fullmatch(text)
        if text in self.partids or number is None:
            return text if text in self.partids else None
        return self._by_partid.get(int(number[1]))

    def named(self, text: str) -> str:
        """The name of the partition that `text` means. Raises CommandFailed with the known ones."""
        name = self.find(text)
        if name is None:
            known = ", ".join(map(self._both, self.partids))
            raise CommandFailed(
                f"cluster {self.cluster} has no partition {text}; it has {known}", "xpmem-emu ps"
            )
        return name

    def called(self, partid: int) -> str:
        """What partition `partid` is called; by its number when the cluster has none such."""
        return self._by_partid.get(partid, numbered(partid))

    def several(self, text: str) -> "Partids":
        """The partids of `a0,b0` or `p0-2,b0`, ascending. Raises CommandFailed."""
        found: set[int] = set()
        for part in text.split(","):
            span = None if part in self.partids else _SPAN.fullmatch(part)
            each = range(int(span[1]), int(span[2]) + 1) if span else ()
            names = [numbered(number) for number in each] or [part]
            found |= {self.partids[self.named(name)] for name in names}
        return tuple(sorted(found))

    def said(self, text: str) -> str:
        """What a kernel said, in names."""
        return _MENTION.sub(lambda match: self.called(int(match[1])), text)

    def shown(self, row: Mapping[str, object], *, for_people: bool) -> dict[str, object]:
        """A row of a kernel with its mentions of partitions as names; for programs, fields that
        are numbers stay numbers."""
        return {key: self._shown(key, value, for_people) for key, value in row.items()}

    def _shown(self, key: str, value: object, for_people: bool) -> object:
        match value:
            case Mapping():
                inner = self.shown(value, for_people=for_people)
                return {self._key(key, each): found for each, found in inner.items()}
            case list():
                return [self._shown(key, each, for_people) for each in value]
            case str() if key in _TEXTS:
                return self.said(value)
            case bool():
                return value
            case int() if for_people and key in _PARTIDS:
                return self.called(value)
        return value

    def _key(self, of: str, key: str) -> str:
        """A key of the mapping `of`: partitions are p1 there, or 1."""
        if of in _PARTIDS and (number := _NUMBER.fullmatch(key)):
            return self.called(int(number[1]))
        return key

    @cached_property
    def _by_partid(self) -> dict[int, str]:
        return {partid: name for name, partid in self.partids.items()}

    def _both(self, name: str) -> str:
        number = numbered(self.partids[name])
        return name if name == number else f"{name} ({number})"
