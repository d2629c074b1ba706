"""How each mutant breaks the kernel: one context manager each, all patches from outside.

Every one takes away one step that the protocol rests on and leaves everything else alone. Names
and meanings are in `mutants`. One module for each part of the kernel.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Break = Callable[[], AbstractContextManager[Any]]
