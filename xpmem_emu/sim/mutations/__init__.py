"""How each mutant breaks the kernel: one context manager each, all patches from outside.

Every one takes away one step that the protocol rests on and leaves everything else alone. Names
and meanings are in `mutants`. One module for each part of the kernel.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

Mutation = Callable[[], AbstractContextManager[Any]]


@contextmanager
def together(*breaks: AbstractContextManager[Any]) -> Iterator[None]:
    """Several patches as one."""
    with ExitStack() as stack:
        for each in breaks:
            stack.enter_context(each)
        yield
