"""The architecture picture, drawn from what the packages really import.

It stands between the two markers of the README. An arrow means "imports"; arrows that follow from
others are left out.
"""

import ast
from collections import defaultdict
from pathlib import Path

import xpmem_emu

BEGIN, END = "<!-- architecture: begin -->\n", "<!-- architecture: end -->\n"
_ROOT = Path(xpmem_emu.__file__).parent
_CAPTIONS = {
    "cli": "the xpmem-emu command",
    "lab": "the designs of 2008 side by side, measured",
    "scenario": "stories in files, told on any ground, and judged",
    "demo": "a program of a user: three partitions share a file",
    "backend": "a cluster as kernels here, as processes or as containers",
    "live": "the partition process: uvloop and ZeroMQ around one kernel",
    "sim": "virtual time: many kernels in one process",
    "client": "the client library, and the protocol that it speaks with partitions",
    "cluster": "its partitions, folders, files, keys, and who of it lives",
    "judge": "whether a run kept the invariants, and what it looked like",
    "kernel": "one image: tasks, calls, step(now, event) -> effects",
    "xpmem": "segments, permits, attachments, faults, recalls, fencing",
    "mmu": "devices that translate a task's addresses themselves",
    "mm": "frames, page tables, areas, reverse map, notifiers",
    "xpc": "activation, heartbeats, channels, numbered requests",
    "inject": "the interconnect and its fault rules",
    "failpoints": "named places where something can be made to happen",
    "sched": "threads, timers, locks that know who may sleep",
}


def imports() -> dict[str, set[str]]:
    """Which package imports which others, directly."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in _ROOT.rglob("*.py"):
        package = path.relative_to(_ROOT).parts[0]
        if package in _CAPTIONS:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    parts = node.module.split(".")
                    if parts[0] == "xpmem_emu" and len(parts) > 1 and parts[1] in _CAPTIONS:
                        found[package].add(parts[1])
        found[package].discard(package)
    return found


def diagram() -> str:
    """The picture, as a mermaid flowchart."""
    edges = imports()
    lines = ["flowchart TD"]
    lines += [f'    {name}["<b>{name}</b><br>{text}"]' for name, text in _CAPTIONS.items()]
    for package in _CAPTIONS:
        targets = edges[package]
        implied = {far for near in targets for far in _reach(edges, near)}
        lines += [f"    {package} --> {target}" for target in sorted(targets - implied)]
    return "\n".join(lines) + "\n"


def redraw(text: str) -> str:
    """`text` with the picture between the markers renewed."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}```mermaid\n{diagram()}```\n{END}{tail}"


def _reach(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(edges[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges[name]
    return seen
