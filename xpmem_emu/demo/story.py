"""The story: three partitions share a real file, lose part of it, lose one of them, and go on.

Every sentence of it that can be wrong is a claim that is checked against bytes, signals, tables or
events.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xpmem_emu.demo.diagram import DrawnMessage, Note, draw_demo_diagram, drawn_messages
from xpmem_emu.demo.stage import DemoScript, DemoStage, staged
from xpmem_emu.polling import wait_until
from xpmem_emu.units import PAGE_SIZE, format_time, page_align_up

if TYPE_CHECKING:
    from xpmem_emu.client.blocking import Task

_PARTITIONS = 3
_PIECE = 4 << 20
"""Bytes that travel in one call."""
_SPARE_MEMORY = 16 << 20
_ADDRESSES = {"p1": 0x1000_0000_0000, "p2": 0x2000_0000_0000}
_GREETING = b"written by p2"
_NOTICE_S = 20.0
"""Longest that losing a partition may take: two heartbeat checks, disengage limit, and room."""
_RECALL_KINDS = ("INVALIDATE", "INVALIDATE_ACK")


@dataclass(slots=True)
class DemoMemory:
    """What is shared in the demo. `cut` is the offset from which p0 will unmap it."""

    path: Path
    size: int
    length: int
    exporter: "Task"
    address: int
    segid: int
    attachments: dict[str, tuple["Task", int]]

    @property
    def cut(self) -> int:
        """Half of the segment, in whole pages."""
        return self.length // 2 // PAGE_SIZE * PAGE_SIZE


def tell_story(script: DemoScript, path: Path) -> None:
    """Tell it of the file `path`, on a cluster that is there for nothing else. Raises OSError, and
    KernelError where there is no room."""
    memory = page_align_up(path.stat().st_size) + _SPARE_MEMORY
    with staged(script, _PARTITIONS, memory) as stage:
        _tell(stage, path)


def _tell(stage: DemoStage, path: Path) -> None:
    """From the first byte to the last partition. A refusal or a signal where none belongs ends
    the story, and is a claim that failed."""
    from xpmem_emu.client.failures import TaskSignalled, XpmemError

    try:
        sharing = _share(stage, path)
        _read(stage, sharing)
        _write(stage, sharing)
        recall = _recall(stage, sharing)
        _lose_p1(stage, sharing)
    except (XpmemError, TaskSignalled) as error:
        stage.claim("the story goes on to its end", False, str(error))
        stage.script.show(stage.last_words())
        return
    stage.script.show(_summary(stage))
    stage.script.console.print("The recall, as messages between the partitions:")
    stage.script.show(_diagram(stage, *recall))


def _share(stage: DemoStage, path: Path) -> DemoMemory:
    """p0 exports the file; p1 and p2 attach, each at an address of its own."""
    size = path.stat().st_size
    length = max(page_align_up(size), 2 * PAGE_SIZE)
    exporter = stage["p0"].spawn("exporter")
    address = exporter.mmap(length)
    with path.open("rb") as file:
        for start in range(0, size, _PIECE):
            exporter.store(address + start, file.read(_PIECE))
    segid = exporter.xpmem_make(address, length)
    stage.tell(f"p0 exports {path.name}, {size} bytes, as segment {segid:#x}")
    attachments = {}
    for name, place in _ADDRESSES.items():
        task = stage[name].spawn("importer")
        apid = task.xpmem_get(segid)
        attachments[name] = task, task.xpmem_attach(apid, 0, length, vaddr=place)
    places = [address, *(place for _, place in attachments.values())]
    stage.claim(
        "every partition has it at another address",
        len(set(places)) == 3,
        ", ".join(f"p{i} {place:#x}" for i, place in enumerate(places)),
    )
    return DemoMemory(path, size, length, exporter, address, segid, attachments)


def _read(stage: DemoStage, sharing: DemoMemory) -> None:
    """Both importers read all of it; the digests must be that of the real file."""
    with sharing.path.open("rb") as file:
        real = hashlib.file_digest(file, "sha256").hexdigest()
    for name, (task, place) in sharing.attachments.items():
        digest = hashlib.sha256()
        for start in range(0, sharing.length, _PIECE):
            piece = task.load(place + start, min(_PIECE, sharing.length - start))
            digest.update(piece[: max(0, sharing.size - start)])
        faults, pages = _faults(stage, name)
        stage.tell(f"{name} has read all of it: {faults} faults brought {pages} pages")
        stage.claim(
            f"{name} reads the bytes of the file",
            digest.hexdigest() == real,
            f"sha256 {digest.hexdigest()[:16]}...",
        )


def _faults(stage: DemoStage, name: str) -> tuple[int, int]:
    """Faults of a partition that brought pages, and how many they brought."""
    ends = [
        event
        for event in stage.recorder.named("xpmem:fault_end", name)
        if event["outcome"] == "installed"
    ]
    return len(ends), sum(event["pages"] for event in ends)


def _write(stage: DemoStage, sharing: DemoMemory) -> None:
    """p2 stores; the others see it at once, through the same frames."""
    task, place = sharing.attachments["p2"]
    task.store(place, _GREETING)
    stage.tell(f"p2 stores {_GREETING.decode()!r} at {place:#x}")
    other, elsewhere = sharing.attachments["p1"]
    for name, seen in {
        "p0": sharing.exporter.load(sharing.address, len(_GREETING)),
        "p1": other.load(elsewhere, len(_GREETING)),
    }.items():
        stage.claim(
            f"{name} sees what p2 stored", seen == _GREETING, repr(seen.decode(errors="replace"))
        )


def _recall(stage: DemoStage, sharing: DemoMemory) -> tuple[int, int]:
    """p0 unmaps the second half: the importers lose exactly that. Result: from when to when."""
    pages = (sharing.length - sharing.cut) // PAGE_SIZE
    recorder = stage.recorder
    seen = len(recorder.named("xpmem:recall_begin", "p0"))
    stage.tell(f"p0 unmaps the last {pages} pages")
    sharing.exporter.munmap(sharing.address + sharing.cut, sharing.length - sharing.cut)
    recalls = recorder.named("xpmem:recall_begin", "p0")[seen:]
    times = [recall["time_ns"] for recall in recalls] or [0]
    begun_ns = min(times)
    ends = recorder.named("xpmem:recall_end", "p0", begun_ns)
    ended_ns = max([end["time_ns"] for end in ends] or [begun_ns])
    holders = sorted({holder for recall in recalls for holder in recall["holders"]})
    recalled = sum(recall["pages"] for recall in recalls)
    stage.claim(
        "p1 and p2 were recalled, and p0 waited for both",
        holders == [1, 2] and recalled == pages and len(ends) == len(recalls),
        f"{recalled} pages in {format_time(ended_ns - begun_ns)}",
    )
    for name in sharing.attachments:
        _touch_what_is_gone(stage, sharing, name)
    return begun_ns, ended_ns


def _touch_what_is_gone(stage: DemoStage, sharing: DemoMemory, name: str) -> None:
    from xpmem_emu.client.failures import SigBus

    task, place = sharing.attachments[name]
    right, found = False, "it succeeded"
    try:
        task.load(place + sharing.cut, 8)
    except SigBus as signal:
        info, found = signal.info, str(signal)
        page = sharing.cut // PAGE_SIZE
        right = (info.segid, info.page) == (sharing.segid, page) and bool(info.reason)
    stage.claim(f"the next touch of {name} is a SIGBUS that says why", right, found)
    kept = task.load(place, len(_GREETING))
    stage.claim(
        f"{name} keeps the first half",
        kept == _GREETING,
        f"it still reads {kept.decode(errors='replace')!r}",
    )


def _lose_p1(stage: DemoStage, sharing: DemoMemory) -> None:
    """kill -9 of p1's process: p0 takes its pages back, p2 does not notice."""
    from xpmem_emu.backend import processes

    held = _held_by_p1(stage)
    stage.tell(f"p1 is killed (-9) while it holds {held} pages of p0")
    processes.crash(stage.cluster, "p1")
    returned = wait_until(lambda: _held_by_p1(stage) == 0, _NOTICE_S)
    stage.tell("p0 noticed" if returned else "p0 did not notice")
    stage.claim(
        "p0's pins for p1 return, no frame stays in quarantine",
        held > 0 and returned,
        f"{held} before, {_held_by_p1(stage)} now",
    )
    task, place = sharing.attachments["p2"]
    task.store(place, _GREETING.upper())
    seen = sharing.exporter.load(sharing.address, len(_GREETING))
    stage.claim(
        "p2 and p0 go on",
        seen == _GREETING.upper() == task.load(place, len(seen)),
        f"p2 stores and p0 reads {seen.decode(errors='replace')!r}",
    )


def _held_by_p1(stage: DemoStage) -> int:
    """Pages of p0 that p1 holds, and frames that p0 keeps back because p1 may still write."""
    p0 = stage["p0"]
    held = sum(int(row["holders"].get("p1", 0)) for row in p0.look("segments"))
    return held + int(p0.status()["quarantined_frames"])


def _summary(stage: DemoStage) -> str:
    """What it took, from the event streams and from the partitions that live."""
    rows = [["PARTITION", "FAULTS", "PAGES PER FAULT", "RECALLS", "MESSAGES SENT", "PINS NOW"]]
    for name, partition in stage.partitions.items():
        faults, pages = _faults(stage, name)
        figures = [
            faults,
            round(pages / faults) if faults else "-",
            len(stage.recorder.named("xpmem:recall_end", name)),
            len(stage.recorder.named("xpc:send", name)),
            "dead" if name == "p1" else partition.status()["pinned_pages"],
        ]
        rows.append([name, *map(str, figures)])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns under their titles, numbers to the right."""
    columns = []
    for title, *cells in zip(*rows, strict=True):
        width = max(map(len, (title, *cells)))
        to_right = all(map(str.isdecimal, cells))
        columns.append([f"{each:{'>' if to_right else '<'}{width}}" for each in (title, *cells)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _diagram(stage: DemoStage, begun_ns: int, ended_ns: int) -> str:
    """The messages of the recall, with what each importer dropped."""
    things: list[DrawnMessage | Note] = [
        arrow
        for arrow in drawn_messages(stage.recorder.events, _RECALL_KINDS)
        if begun_ns <= arrow.sent_ns <= ended_ns
    ]
    things += [
        Note(drop["time_ns"], drop["partid"], f"drops {drop['ptes']} PTEs")
        for drop in stage.recorder.named("xpmem:invalidate", after_ns=begun_ns)
        if drop["time_ns"] <= ended_ns
    ]
    things += [Note(begun_ns, 0, "munmap: recall begins"), Note(ended_ns, 0, "frees the pages")]
    return draw_demo_diagram(list(stage.partitions), things)
