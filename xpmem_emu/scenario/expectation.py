"""What a call should come to, and whether it did.

    => ok   => "hello"   => zeros   => 8   => word 100   => ENOENT "gone"   => SIGBUS "removed"

Alternatives stand with `or` between them; `lost` is the end of a call whose partition is gone, and
`any` is every end. Text behind an errno or a signal must be part of the reason given.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from xpmem_emu.errors import XPMEM_ERRNO_NOPROC, Signal, errno_name
from xpmem_emu.kernel.interface import Done, Failed, Outcome, Raised
from xpmem_emu.scenario.lexer import (
    Bindings,
    ScenarioError,
    Token,
    data,
    is_name,
    near,
    require_value,
    to_number,
)

ERRNOS = {name: value for value, name in errno.errorcode.items()} | {"NOPROC": XPMEM_ERRNO_NOPROC}
_PLAIN = ("ok", "zeros", "lost", "any")
_SHOWN = 48
"""Bytes of a result that a message quotes."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One alternative: `what`, and the text or value that goes with it."""

    what: str
    detail: Token | None = None

    def met(self, outcome: Outcome | None, names: Bindings) -> bool:
        """Whether `outcome` is this; None is the end of a call that was lost."""
        match outcome:
            case Done(value=value, bulk=bulk):
                return self._done(value, bytes(bulk), names)
            case Failed(errno=number_, cause=cause):
                return self.what == "any" or (
                    ERRNOS.get(self.what) == number_ and self._told(cause)
                )
            case Raised(info=info):
                return self.what == "any" or (
                    self.what == info.signal.name and self._told(info.describe())
                )
        return self.what in ("lost", "any")

    def _done(self, value: object, bulk: bytes, names: Bindings) -> bool:
        if self.what in ("ok", "any"):
            return True
        if self.what == "zeros":
            return not any(bulk)
        if self.detail is None:
            return False
        if self.what == "text":
            return bulk == data(self.detail, names)
        if self.what == "word":
            return int.from_bytes(bulk, "little") == to_number(self.detail.text, names)
        return self.what == "value" and value == to_number(self.detail.text, names)

    def _told(self, reason: str) -> bool:
        return self.detail is None or self.detail.text in reason


Expectation = tuple[Expected, ...]
OK: Expectation = (Expected("ok"),)


def read_expectation(words: Sequence[Token]) -> Expectation:
    """The alternatives that these words are. Raises Wrong."""
    found: list[Expected] = []
    group: list[Token] = []
    for word in [*words, Token("or")]:
        if word.text == "or" and not word.quoted:
            found.append(_alternative(group))
            group = []
        else:
            group.append(word)
    return tuple(found)


def _alternative(words: Sequence[Token]) -> Expected:
    match words:
        case [Token(quoted=True, key="") as text]:
            return Expected("text", text)
        case [Token(text="word"), Token(quoted=False) as value]:
            require_value(value.text)
            return Expected("word", value)
        case [Token(text=plain)] if plain in _PLAIN:
            return Expected(plain)
        case [Token(text=name)] if name in ERRNOS or name in Signal.__members__:
            return Expected(name)
        case [Token(text=name), Token(quoted=True) as reason] if (
            name in ERRNOS or name in Signal.__members__
        ):
            return Expected(name, reason)
        case [Token(text=value) as word] if not is_name(value) or not value.isupper():
            require_value(value)
            return Expected("value", word)
        case []:
            raise ScenarioError("nothing is expected", '=> ok, => "text", => ENOENT, => SIGBUS')
    shown = " ".join(word.text for word in words)
    raise ScenarioError(
        f"{shown!r} is no outcome", near(words[0].text, [*ERRNOS, *Signal.__members__])
    )


def outcome_text(outcome: Outcome | None) -> str:
    """An outcome for people, as a scenario would write it where it can."""
    match outcome:
        case Done(value=value, bulk=bulk) if len(bulk):
            more = f"... ({len(bulk)} bytes)" if len(bulk) > _SHOWN else ""
            return f"{bytes(bulk[:_SHOWN])!r}{more}"
        case Done(value=value):
            return f"ok ({value:#x})" if isinstance(value, int) else "ok"
        case Failed(errno=number_, cause=cause):
            return f"{errno_name(number_)} ({cause})"
        case Raised(info=info):
            return info.describe()
    return "lost with its partition"
