"""Which words may come next in the text of a fault, for the completion of the shell.

Knows the shape of the grammar (docs/faults.md) from the tables that it is read by, and judges
nothing: a text that is completed may still be refused.
"""

from collections.abc import Iterable, Iterator, Sequence

import click

from xpmem_emu.cli.completion import Completer, _Words, completer
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.inject.grammar_values import FIELDS
from xpmem_emu.inject.injections import Bound, ClockEffect
from xpmem_emu.inject.rules import MEMBERSHIPS, SIGNATURES, Distribution, Fate
from xpmem_emu.xpc.messages import MESSAGE_NAMES

_OF_PARTITIONS = ("clock", "throttle", "stall", "poison", "strain")
_MEMBERSHIPS = {kind.value: gist for kind, gist in MEMBERSHIPS.items()}
_VERDICTS = {verdict.value: each.gist for verdict, each in SIGNATURES.items()}
_VALUES = {
    "--match": [
        "sender=",
        "receiver=",
        "number=",
        "nth=",
        "segid=",
        *(f"type={name}" for name in MESSAGE_NAMES),
    ],
    "--distribution": [each.value for each in Distribution],
}
_THIRD = {"clock": [each.value for each in ClockEffect], "strain": [each.value for each in Bound]}


def next_words(done: Sequence[str], partitions: Iterable[str]) -> _Words:
    """What may follow the words `done` of a fault."""
    if done and done[-1].startswith("--"):
        return _VALUES.get(done[-1], ())
    words = list(_without_options(done))
    if not words:
        return ["link", *_VERDICTS.items(), *_MEMBERSHIPS.items(), *_OF_PARTITIONS]
    match words:
        case ["link"]:
            return [f"{one}->{other}" for one in partitions for other in partitions if one != other]
        case ["link", _]:
            return list(_VERDICTS.items())
        case [head] if head in _OF_PARTITIONS or head in _MEMBERSHIPS:
            return partitions
        case [("clock" | "strain") as head, _]:
            return _THIRD[head]
    return _options(words[2] if words[0] == "link" else words[0])


def _options(verdict: str) -> Iterator[str]:
    """The options of a fault whose other words are there."""
    yield from ("--for", "--name")
    if verdict in _VERDICTS or verdict in _MEMBERSHIPS:
        yield from ("--match", "--prob", "--times", "--after")
    if verdict in _VERDICTS:
        yield from (f"--{FIELDS[name].option}" for name in SIGNATURES[Fate(verdict)].options)


def _without_options(words: Sequence[str]) -> Iterator[str]:
    option = False
    for word in words:
        if word.startswith("--"):
            option = True
        elif option:
            option = False
        else:
            yield word


def _texts(before: Sequence[str]) -> Completer:
    """Completes the next word of a fault that begins with the words `before`: one quoted text, or
    a word for each word."""

    def known(session: CommandSession, context: click.Context, begun: str) -> _Words:
        head, blank, _ = begun.rpartition(" ")
        done = [*before, *(context.params.get("words") or ()), *head.split()]
        for word in next_words(done, list(session.names.partids)):
            text, gist = (word, "") if isinstance(word, str) else word
            # Outside of quotes the shell would take it for a redirection.
            if blank or ">" not in text:
                yield f"{head}{blank}{text}", gist

    return completer(known)


complete_injection = _texts(())
held_text = _texts(["hold"])
