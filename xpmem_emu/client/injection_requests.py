"""What a client can ask of the process around a kernel about faults: bodies of `Ask.FAULTS`."""

from typing import Annotated

from msgspec import Meta, Struct

from xpmem_emu.fields import InjectionText, ShortText


class InjectionRequest(Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    """Base of what a client can ask about faults."""


class Add(InjectionRequest, frozen=True, tag="add"):
    """Put up a fault; `seed` is of its random streams. Result: its name."""

    text: InjectionText
    seed: Annotated[int, Meta(ge=0)] = 0


class List(InjectionRequest, frozen=True, tag="list"):
    """Result: a row for each fault in force."""


class Remove(InjectionRequest, frozen=True, tag="remove"):
    """Heal one fault. Result: None."""

    name: ShortText


class Reset(InjectionRequest, frozen=True, tag="reset"):
    """Heal every fault. Result: their names."""


class ReleaseRequest(InjectionRequest, frozen=True, tag="release"):
    """Let go what a fault holds back. Result: how many messages."""

    name: ShortText


AnyInjectionRequest = Add | List | Remove | Reset | ReleaseRequest
