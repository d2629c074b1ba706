"""What every call of a kernel is: a Struct whose tag says which operation it asks for."""

from msgspec import Struct


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class Call(Struct, frozen=True, tag_field="op", tag=_snake, forbid_unknown_fields=True):
    """Base of all calls; the tag is the operation's name, `xpmem_make` for XpmemMake."""
