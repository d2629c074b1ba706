"""What every call of a kernel is: a Struct whose tag says which operation it asks for, and whose
base says what the answer is. Clients, the simulator and stories make all they need out of these.
"""

from typing import Any, Generic, TypeVar

from msgspec import Struct

_T = TypeVar("_T")
TableRow = dict[str, Any]
"""What is known of one object; all rows of a table have the same keys."""


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class Call(Struct, frozen=True, tag_field="op", tag=_snake, forbid_unknown_fields=True):
    """Base of all calls; the tag is the operation's name, `xpmem_make` for XpmemMake."""


class Returns(Call, Generic[_T], frozen=True):
    """A call that is answered with a `T`, besides the bytes that it may ask for."""


def op_of(call: Call | type[Call]) -> str:
    """The name of the operation."""
    return str(call.__struct_config__.tag)
