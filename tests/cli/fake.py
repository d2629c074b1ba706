"""A cluster of plain Python objects, as much of it as the command line touches.

It has the client library's method names and the kernel's row keys, and shares memory by sharing
bytearrays. It is not a model of XPMEM: nothing here may be used to judge semantics.
"""

import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from xpmem_emu.cli.session import CommandSession
from xpmem_emu.client.failures import SigBus, xpmem_error
from xpmem_emu.errors import Signal, SignalInfo
from xpmem_emu.inject.grammar import parse_injection, stem
from xpmem_emu.xpmem.ids import IdParts

Row = dict[str, object]
LOGGED = (
    *("munmap", "mprotect", "madvise", "exit"),
    *("gru_attach", "guest_attach", "guest_slot", "mirror_attach"),
    *("device_store", "device_detach"),
)
"""Calls of which only is asked whether they were made."""


@dataclass
class Area:
    memory: bytearray
    segid: int = 0
    apid: int = 0


@dataclass
class FakeTask:
    partition: "FakePartition"
    pid: int
    name: str = ""
    why: str = "nothing is there"
    areas: dict[int, Area] = field(default_factory=dict)
    log: list[tuple[object, ...]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Calls whose effect no test of the command line looks at: only that they were made."""
        if name not in LOGGED:
            raise AttributeError(name)
        return lambda *arguments: self.log.append((name, *arguments))

    def mmap(self, length: int, *details: object) -> int:
        if length > self.partition.memory:
            raise xpmem_error(errno.ENOMEM, f"{length} bytes do not fit", "a smaller size")
        self.log.append(("mmap", length, *details))
        return self._place(Area(bytearray(length)), 0)

    def mremap(self, address: int, *details: object) -> int:
        self.log.append(("mremap", address, *details))
        return address + 0x1000

    def migrate(self, address: int, length: int) -> int:
        return length // 4096

    def fork(self) -> "FakeTask":
        return self.partition.spawn(self.name)

    def kill(self, signal: int = 9, reason: str = "") -> None:
        self.log.append(("kill", signal))
        self.partition.tasks.pop(self.pid)

    def load(self, address: int, size: int) -> bytes:
        start, area = self._find(address, size)
        return bytes(area.memory[address - start : address - start + size])

    def store(self, address: int, data: bytes) -> None:
        start, area = self._find(address, len(data))
        area.memory[address - start : address - start + len(data)] = data

    def device_load(self, device: str, address: int, size: int) -> bytes:
        self.log.append(("device_load", device, address, size))
        return b"from a device"[:size]

    def amo(self, address: int, operation: str, operand: int, compare: int) -> int:
        before = int.from_bytes(self.load(address, 8), "little")
        after = before + operand
        if operation == "compare_swap":
            after = operand if before == compare else before
        self.store(address, after.to_bytes(8, "little"))
        return before

    def bte_copy(self, source: int, target: int, size: int) -> None:
        self.store(target, self.load(source, size))

    def xpmem_make(self, vaddr: int, size: int, permit_value: int, *, name: str = "") -> int:
        if name and not self.partition.names_enabled:
            raise xpmem_error(
                errno.EINVAL,
                "segment names are an extension",
                "set extensions.segment_names in the image",
            )
        self.partition.made += 1
        segid = IdParts(
            self.partition.partid, self.partition.facts.boot, self.pid, self.partition.made
        ).pack()
        _, area = self._find(vaddr, 1)
        self.partition.segments[segid] = (self.pid, vaddr, size, permit_value, area.memory)
        return segid

    def xpmem_remove(self, segid: int) -> None:
        del self.partition.segments[segid]

    def xpmem_get(self, segid: int, flags: int) -> int:
        if self.partition.cluster.segment(segid) is None:
            raise xpmem_error(errno.ENOENT, f"no segment {segid:#x}", "xpmem-emu get segments")
        apid = IdParts(
            self.partition.partid,
            self.partition.facts.boot,
            self.pid,
            len(self.partition.permits) + 1,
        ).pack()
        self.partition.permits[apid] = segid
        return apid

    def xpmem_attach(self, apid: int, offset: int, size: int, vaddr: int = 0) -> int:
        found = self.partition.cluster.segment(self.partition.permits[apid])
        assert found is not None
        assert offset == 0
        area = Area(found[4], self.partition.permits[apid], apid)
        return self._place(area, vaddr)

    def xpmem_release(self, apid: int) -> None:
        del self.partition.permits[apid]

    def xpmem_detach(self, vaddr: int) -> None:
        del self.areas[vaddr]

    def _place(self, area: Area, address: int) -> int:
        address = address or 0x7000_0000 + 0x1000_0000 * len(self.areas)
        self.areas[address] = area
        return address

    def _find(self, address: int, size: int) -> tuple[int, Area]:
        for start, area in self.areas.items():
            if start <= address and address + size <= start + len(area.memory):
                return start, area
        raise SigBus(SignalInfo(Signal.SIGBUS, self.why, address))


@dataclass
class Facts:
    boot: int = 7


@dataclass
class FakePartition:
    cluster: "FakeEmulator"
    partid: int
    facts: Facts = field(default_factory=Facts)
    memory: int = 64 << 20
    made: int = 0
    names_enabled: bool = False
    tasks: dict[int, FakeTask] = field(default_factory=dict)
    segments: dict[int, tuple[int, int, int, int, bytearray]] = field(default_factory=dict)
    permits: dict[int, int] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    points: dict[str, str] = field(default_factory=dict)
    log: list[tuple[object, ...]] = field(default_factory=list)

    def __enter__(self) -> "FakePartition":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def spawn(self, name: str = "", **_details: object) -> FakeTask:
        pid = len(self.tasks) + 1
        self.tasks[pid] = FakeTask(self, pid, name)
        return self.tasks[pid]

    def task(self, pid: int) -> FakeTask:
        if pid not in self.tasks:
            raise xpmem_error(errno.ESRCH, f"no task {pid}", "xpmem-emu task ls")
        return self.tasks[pid]

    def xpmem_find(self, name: str) -> int:
        raise xpmem_error(
            errno.EINVAL,
            "segment names are an extension",
            "set extensions.segment_names in the image",
        )

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name not in ("creat", "truncate", "writeback", "unlink", "reclaim"):
            raise AttributeError(name)

        def call(*arguments: object) -> int:
            self.log.append((name, *arguments))
            return 3

        return call

    def fault_add(self, text: str, seed: int) -> None:
        self.faults[parse_injection(text).name] = text

    def fault_list(self) -> list[Row]:
        return [
            {
                "name": name,
                "fault": text,
                "kind": stem(parse_injection(text)),
                "hits": 1,
                "held": 2,
                "left_ns": -1,
            }
            for name, text in self.faults.items()
        ]

    def fault_remove(self, name: str) -> None:
        del self.faults[name]

    def fault_release(self, name: str) -> int:
        self.log.append(("fault_release", name))
        return 2

    def fault_reset(self) -> list[str]:
        names = list(self.faults)
        self.faults.clear()
        return names

    def failpoint_set(self, point: str, terms: str, seed: int) -> None:
        self.points[point] = terms

    def failpoint_clear(self, point: str = "") -> None:
        for each in [point] if point else list(self.points):
            self.points.pop(each, None)

    def failpoint_resume(self, point: str) -> int:
        return 1

    def failpoints(self) -> list[Row]:
        return [
            {
                "point": "mm.gup.pin",
                "context": "atomic",
                "errno": 12,
                "gist": "a pin",
                "hits": 0,
                "paused": 0,
                "terms": self.points.get("mm.gup.pin", ""),
            }
        ]

    def look(self, kind: str) -> list[Row]:
        tables: dict[str, Callable[[], Iterator[Row]]] = {
            "segments": self._segment_rows,
            "attachments": self._attachment_rows,
            "permits": self._permit_rows,
            "tasks": self._task_rows,
        }
        return list(tables[kind]()) if kind in tables else []

    def describe(self, what: str) -> Row:
        for row in [*self.look("segments"), *self.look("permits")]:
            if int(what, 0) in (row.get("apid"), row.get("segid")):
                return row
        raise xpmem_error(errno.ENOENT, f"no object {what}")

    def pagetable(self, pid: int, address: int) -> Row:
        area = "none: an access is SIGSEGV"
        for start, each in self.tasks[pid].areas.items() if pid in self.tasks else ():
            if start <= address < start + len(each.memory):
                area = f"{start:#x}-{start + len(each.memory):#x} rws"
        return {
            "pid": pid,
            "address": address,
            "levels": [{"level": "pgd", "index": 0}],
            "area": area,
        }

    def status(self) -> Row:
        return {"frames_total": self.memory // 4096, "peers": {}}

    def recent_events(self) -> list[Row]:
        return [
            {
                "record": 1,
                "time_ns": 5_000_000 + self.partid,
                "partid": self.partid,
                "thread": "idle",
                "event": "kernel:boot",
                "boot": 7,
            },
            {
                "record": 2,
                "time_ns": 9_000_000 - self.partid,
                "partid": self.partid,
                "thread": "fault/1",
                "event": "xpmem:fault_end",
                "segid": 16,
                "pages": 49,
            },
        ]

    def events(self) -> Iterator[Row]:
        yield from self.recent_events()

    def _segment_rows(self) -> Iterator[Row]:
        for segid, (pid, vaddr, size, mode, _) in self.segments.items():
            yield {
                "segid": segid,
                "partid": self.partid,
                "pid": pid,
                "vaddr": vaddr,
                "size": size,
                "mode": f"{mode:04o}",
                "name": "",
                "state": "live",
                "pinned_pages": 0,
                "holders": {},
            }

    def _attachment_rows(self) -> Iterator[Row]:
        for task in self.tasks.values():
            for address, area in task.areas.items():
                if area.apid:
                    yield {
                        "segid": area.segid,
                        "apid": area.apid,
                        "pid": task.pid,
                        "address": address,
                        "size": len(area.memory),
                    }

    def _permit_rows(self) -> Iterator[Row]:
        for apid, segid in self.permits.items():
            found = self.cluster.segment(segid)
            yield {"apid": apid, "segid": segid, "size": found[2] if found else 0}

    def _task_rows(self) -> Iterator[Row]:
        for task in self.tasks.values():
            yield {"pid": task.pid, "name": task.name, "state": "running"}


class FakeEmulator:
    """Partitions of these names, numbered from 0; `silent` ones are known and do not answer."""

    def __init__(self, *names: str) -> None:
        self.running = {
            name: FakePartition(self, partid)
            for partid, name in enumerate(names or ("p0", "p1", "p2"))
        }
        self.silent: set[str] = set()
        self.still: set[str] = set()
        self.hung: set[str] = set()

    def connect(self, partition: str, cluster: str, boot: int = 0) -> FakePartition:
        self.partitions(cluster)
        if partition not in self.running:
            raise xpmem_error(
                errno.ENOENT,
                f"cluster {cluster} has no partition {partition}",
                f"one of {', '.join(self.running)}",
            )
        if partition in self.silent:
            raise xpmem_error(errno.ECONNREFUSED, f"nobody answers at {partition}", "xpmem-emu ps")
        if partition in self.hung:
            raise xpmem_error(errno.ETIMEDOUT, f"no answer from {partition}", "xpmem-emu ps")
        found = self.running[partition]
        if boot not in (0, found.facts.boot):
            raise xpmem_error(errno.ESTALE, f"boot {boot} of {partition} is meant", "get tasks")
        return found

    def reboot(self, partition: str) -> None:
        """Another boot, with tasks of the same pids."""
        before = self.running[partition]
        self.running[partition] = FakePartition(self, before.partid, Facts(before.facts.boot + 1))

    def partitions(self, cluster: str) -> Mapping[str, int]:
        if cluster != "default":
            raise xpmem_error(
                errno.ENOENT, f"there is no cluster {cluster}", f"xpmem-emu --cluster {cluster} up"
            )
        return {name: each.partid for name, each in self.running.items()}

    def stands_still(self, partition: str, cluster: str) -> bool:
        return partition in self.still

    def segment(self, segid: int) -> tuple[int, int, int, int, bytearray] | None:
        for each in self.running.values():
            if segid in each.segments:
                return each.segments[segid]
        return None

    def session(self) -> CommandSession:
        return CommandSession(self)  # type: ignore[arg-type]
