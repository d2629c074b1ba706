"""Slips: one line of the kernel that its author got wrong, everything else as it is.

A slip is a text: a piece of a function as it stands, and what stands there instead. The function is
compiled again in its own module for the time of a `with` block. A piece that is not there exactly
once is a ValueError, so that no slip outlives the line that it is about.
"""

import inspect
import textwrap
from contextlib import AbstractContextManager
from types import FunctionType, ModuleType
from typing import Any
from unittest.mock import patch

from xpmem_emu.sim.mutations.patches import Mutation, everywhere


def slip(where: ModuleType | type, name: str, old: str, new: str) -> Mutation:
    """A break in which `name` of `where` has `new` in place of `old`."""
    return lambda: _slipped(where, name, old, new)


def _slipped(
    where: ModuleType | type, name: str, old: str, new: str
) -> AbstractContextManager[Any]:
    function = inspect.getattr_static(where, name)
    if not isinstance(function, FunctionType):
        raise TypeError(f"{name} of {where.__name__} is no function")
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise ValueError(f"{name} of {where.__name__} has {old!r} {source.count(old)} times")
    made: dict[str, Any] = {}
    exec(compile(source.replace(old, new), f"<slip of {name}>", "exec"), function.__globals__, made)
    slipped = made[function.__name__]
    if isinstance(where, ModuleType):
        return everywhere(function, slipped)
    return patch.object(where, name, slipped)
