"""The state machines of the emulator as a page of diagrams, drawn from their tables."""

import importlib
import pkgutil

import xpmem_emu
from xpmem_emu.tables import StateMachine

_HEAD = """# State machines

Drawn from the transition tables by `make docs`; an event that has no arrow is a bug of the
emulator and panics the partition that finds it.
"""
_KERNEL_SIDE = ("mm", "xpc", "xpmem", "kernel")


def diagrams() -> dict[str, str]:
    """The diagram of every machine, by its name."""
    found: dict[str, str] = {}
    for module in pkgutil.walk_packages(xpmem_emu.__path__, "xpmem_emu."):
        if module.name.split(".")[1] in _KERNEL_SIDE:
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, StateMachine):
                    found[value.name] = value.mermaid()
    return dict(sorted(found.items()))


def machines_page() -> str:
    """The whole page, in Markdown with mermaid diagrams."""
    sections = [f"## {name}\n\n```mermaid\n{diagram}```\n" for name, diagram in diagrams().items()]
    return "\n".join([_HEAD, *sections])
