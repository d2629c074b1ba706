"""Every call of the kernel as words: one description, made from the calls themselves.

    exporter xpmem_make memory 8p permit_value=0666     fields in their order, or by name

The subject of a call that has a pid is a task, of any other a partition. A value becomes what its
field is: a number, a text, a list. Nothing here makes a call.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from xpmem_emu.errors import Signal
from xpmem_emu.fields import misfit_named
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.call import Call, op_of
from xpmem_emu.mm.pte import FRAME_SHIFT, LOCAL_MASK
from xpmem_emu.scenario.lexer import (
    Bindings,
    ScenarioError,
    TaskName,
    Token,
    data,
    near,
    require_value,
    to_number,
)

CALL_VERBS: Mapping[str, type[Call]] = {
    op_of(kind): kind for kind in typing.get_args(calls.AnyCall)
}
MAKERS: tuple[type[Call], ...] = (calls.Spawn, calls.Fork)
"""Calls that make a task."""
_CLOSERS = (calls.XpmemClose, calls.Exec)


@dataclass(frozen=True, slots=True)
class Invocation:
    """A call as a step writes it: what, by whom, with which words."""

    kind: type[Call]
    subject: str
    words: Mapping[str, Token] = field(default_factory=dict)
    bulk: Token | None = None

    def call(self, names: Bindings, actor: TaskName | None) -> tuple[Call, bytes]:
        """The call and its bulk, with the values of now. Raises Wrong."""
        fields: dict[str, object] = {
            name: _value(_types(self.kind)[name], word, names) for name, word in self.words.items()
        }
        if actor is not None and "pid" in _types(self.kind):
            fields["pid"] = actor.pid
        try:
            call = msgspec.convert({"op": self.verb, **fields}, self.kind)
        except msgspec.ValidationError as error:
            raise ScenarioError(f"{self.verb}: {misfit_named(str(error))}") from None
        return call, data(self.bulk, names) if self.bulk is not None else b""

    @property
    def verb(self) -> str:
        """How the call is named."""
        return op_of(self.kind)

    @property
    def needs_device(self) -> bool:
        """Whether libxpmem opens the device first when the task has it not open."""
        return (
            self.verb.startswith("xpmem_") and takes_task(self.kind) and self.kind not in _CLOSERS
        )

    @property
    def closes_device(self) -> bool:
        """Whether the task has the device not open afterwards."""
        return self.kind in _CLOSERS


def read_invocation(subject: str, verb: str, words: Sequence[Token]) -> Invocation:
    """The call that these words are. Raises Wrong."""
    kind = CALL_VERBS.get(verb)
    if kind is None:
        raise ScenarioError(f"no call is named {verb!r}", near(verb, CALL_VERBS))
    order = [name for name in _types(kind) if name != "pid"]
    bulk, rest = None, list(words)
    if kind in calls.WITH_BULK:
        # The bytes to write are the last word.
        if not rest or not rest[-1].quoted or rest[-1].key:
            raise ScenarioError(
                f"{verb} needs the text to write as its last word", 'such as "hello"'
            )
        bulk = rest.pop()
    given: dict[str, Token] = {}
    for word in rest:
        name = word.key or next((each for each in order if each not in given), "")
        if name not in order or name in given:
            raise ScenarioError(
                f"{verb} takes no {word.key or word.text!r}", f"{verb} {' '.join(order)}"
            )
        given[name] = word
        _require(_types(kind)[name], word)
    missing = [
        each.name
        for each in msgspec.structs.fields(kind)
        if each.required and each.name != "pid" and each.name not in given
    ]
    if missing:
        raise ScenarioError(f"{verb} needs {' and '.join(missing)}", f"{verb} {' '.join(order)}")
    return Invocation(kind, subject, given, bulk)


def takes_partition(kind: type[Call]) -> bool:
    """Whether a partition can be the subject."""
    return "pid" not in _types(kind) or not next(
        each.required for each in msgspec.structs.fields(kind) if each.name == "pid"
    )


def takes_task(kind: type[Call]) -> bool:
    """Whether a task can be the subject."""
    return "pid" in _types(kind)


def values_of(invocation: Invocation) -> list[str]:
    """Every value in the call whose names must exist."""
    types_ = _types(invocation.kind)
    texts = [
        word.text
        for name, word in invocation.words.items()
        if _plain(types_[name]) is int and not _signal(word)
    ]
    if invocation.bulk is not None and invocation.bulk.repeat:
        texts.append(invocation.bulk.repeat)
    return texts


def made_value(kind: type[Call], value: object) -> int | None:
    """The number that a name given to this call's result stands for."""
    if isinstance(value, dict) and kind is calls.Pagetable:
        return int(value["pte"]) >> FRAME_SHIFT & LOCAL_MASK
    return value if isinstance(value, int) else None


def _types(kind: type[Call]) -> dict[str, object]:
    return {each.name: each.type for each in msgspec.structs.fields(kind)}


def _plain(kind: object) -> object:
    """The type that a field has under its bounds."""
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_origin(kind) or kind


def _signal(word: Token) -> Signal | None:
    return Signal[word.text] if word.text in Signal.__members__ else None


def _require(kind: object, word: Token) -> None:
    if _plain(kind) is int and not _signal(word):
        if word.quoted:
            raise ScenarioError(f'"{word.text}" is text, a value is wanted here')
        require_value(word.text)


def _value(kind: object, word: Token, names: Bindings) -> object:
    base = _plain(kind)
    if base is int:
        signal = _signal(word)
        return to_number(word.text, names) if signal is None else int(signal)
    if base is list:
        return [to_number(each, names) for each in word.text.split(",") if each not in ("", "none")]
    if base in (bool, types.UnionType, typing.Union):
        if word.text not in ("yes", "no"):
            raise ScenarioError(f"{word.text!r} is neither yes nor no")
        return word.text == "yes"
    return word.text
