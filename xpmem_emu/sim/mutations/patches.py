"""How a mutant breaks the kernel: a context manager that patches it from outside.

Every one takes away one step that the protocol rests on and leaves everything else alone. Names
and meanings are in `table`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

Mutation = Callable[[], AbstractContextManager[Any]]
_WATCHERS = ("xpmem_emu.sim.", "xpmem_emu.judge.")
"""Modules that stay whole: a judge that is broken like the kernel would see nothing."""


@contextmanager
def together(*breaks: AbstractContextManager[Any]) -> Iterator[None]:
    """Several patches as one."""
    with ExitStack() as stack:
        for each in breaks:
            stack.enter_context(each)
        yield


def everywhere(
    function: Callable[..., Any], instead: Callable[..., Any]
) -> AbstractContextManager[Any]:
    """A function of the kernel replaced under every name by which the kernel calls it: a module
    that imported it looks it up in itself."""
    import_module("xpmem_emu.kernel.boot")  # all of it: what is imported later would be missed
    places = [
        (module, name)
        for path, module in list(sys.modules.items())
        if path.startswith("xpmem_emu.") and not path.startswith(_WATCHERS)
        for name, value in vars(module).items()
        if value is function
    ]
    return together(*(patch.object(module, name, instead) for module, name in places))
