"""Processes of this host as a ground: a cluster of its own, started and taken down by the run.

Calls are made by threads, one each, because the client library blocks; their ends are seen by
`wait`, which looks every few milliseconds. The event stream is what the partitions write to their
event logs. The cluster has a name of its own, so that it meets no other.
"""

import errno
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from xpmem_emu.backend import processes
from xpmem_emu.backend.interface import (
    ASKED_TO_PANIC,
    BackendSpec,
    InjectionCount,
    PendingCall,
    Unanswered,
)
from xpmem_emu.backend.launcher import Launcher
from xpmem_emu.client.blocking import Partition, connect
from xpmem_emu.client.cluster_injections import (
    heal_injections,
    inject_everywhere,
    injections_in_force,
    release_injections,
)
from xpmem_emu.client.failures import TaskSignalled, XpmemError
from xpmem_emu.cluster.paths import run_folder
from xpmem_emu.cluster.topology import ClusterSpec, PartitionSpec
from xpmem_emu.codec import Buffer
from xpmem_emu.errors import KernelError
from xpmem_emu.image import image_text
from xpmem_emu.inject.grammar import parse_injection
from xpmem_emu.inject.injections import concerns
from xpmem_emu.judge.records import read_record
from xpmem_emu.judge.streams import StreamsEnd, judge_stream_files
from xpmem_emu.judge.verdict import Violation
from xpmem_emu.kernel.breaking import CrashKernel
from xpmem_emu.kernel.calls import Call, Value
from xpmem_emu.kernel.interface import Done, Failed, Raised
from xpmem_emu.polling import wait_until
from xpmem_emu.trace import Record
from xpmem_emu.units import SECOND

_ANSWER_S = 10.0
_LEASE_S = 60.0
"""Of this process, whose threads all wait for one another."""
_LOOK_AGAIN_S = 0.005
_GONE = (errno.ECONNRESET, errno.ESTALE, errno.EBADF, errno.EHOSTDOWN)
"""How the client library says that the partition of a call is not there any more."""


class LiveBackend:
    """A Backend whose partitions are processes of this host, in real time."""

    name = "live"
    launcher: Launcher = processes

    def __init__(self, wanted: BackendSpec, seed: int) -> None:
        self.partitions: Mapping[str, int] = {
            name: partid for partid, name in enumerate(wanted.partitions)
        }
        self.cluster = f"run-{os.getpid()}-{secrets.token_hex(3)}"
        self._image = wanted.image
        self._domains = wanted.domains
        self._seed = seed
        self._clients: dict[str, Partition] = {}
        self._records: list[Record] = []
        self._read: dict[str, int] = {}
        self._folder: Path | None = None

    @property
    def running(self) -> Sequence[str]:
        return [row.name for row in self.launcher.ps(self.cluster) if row.state != "dead"]

    def up(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="xpmem-emu-run-"))
        image = self._folder / "image.toml"
        image.write_text(image_text(self._image))
        processes.up(
            ClusterSpec(
                self.cluster, self._specs(), image=str(image), event_log=True, lease_s=_LEASE_S
            )
        )
        for name in self.partitions:
            self._clients[name] = connect(name, self.cluster)

    def _specs(self) -> tuple[PartitionSpec, ...]:
        return tuple(
            PartitionSpec(name=name, partid=partid, domain=self._domains[partid])
            for name, partid in self.partitions.items()
        )

    def down(self) -> None:
        if self._folder is None:
            return
        self.records()
        with suppress(KernelError):
            processes.down(self.cluster)
        for client in self._clients.values():
            client.close()
        shutil.rmtree(self._folder)
        self._folder = None

    # -- calls and looks -------------------------------------------------------------------

    def begin(self, partition: str, call: Call, bulk: Buffer = b"") -> PendingCall:
        pending, client = PendingCall(), self._clients[partition]

        def make() -> None:
            try:
                answer = client.call(call, bulk)
            except TaskSignalled as signalled:
                pending.end(Raised(signalled.info))
            except XpmemError as error:
                number = error.errno or 0
                lost = number in _GONE
                pending.end(None if lost else Failed(number, error.cause, error.remedy))
            else:
                pending.end(Done(answer.value, bytes(answer.bulk)))

        # A daemon: what a stopped partition never answers must not keep this program.
        threading.Thread(target=make, name=f"call on {partition}", daemon=True).start()
        return pending

    def ask(self, partition: str, call: Call) -> Value:
        try:
            return self._clients[partition].call(call, timeout=_ANSWER_S).value
        except (XpmemError, TaskSignalled) as error:
            raise Unanswered(f"{partition} does not answer: {error}") from None

    def records(self) -> Sequence[Record]:
        fresh: list[Record] = []
        for name in self.partitions:
            path = self._event_log(name)
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._read.get(name, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[name] = self._read.get(name, 0) + len(whole) + len(newline)
            fresh += [read_record(line) for line in whole.splitlines()]
        self._records += sorted(fresh, key=lambda record: record.time_ns)
        return self._records

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wait(self, condition: Callable[[], bool], patience_ns: int) -> bool:
        return wait_until(condition, patience_ns / SECOND, _LOOK_AGAIN_S)

    # -- faults ----------------------------------------------------------------------------

    def put_up(self, text: str) -> None:
        fault = parse_injection(text)
        wanted = concerns(fault)
        concerned = {
            name: self._clients[name]
            for name in self.running
            if wanted is None or self.partitions[name] in wanted
        }
        inject_everywhere(concerned, fault, self._seed)

    def heal(self, name: str = "") -> None:
        if name:
            heal_injections(self._answering(), [name])
            return
        for _, client in self._answering():
            client.fault_reset()

    def release_held(self, name: str) -> None:
        release_injections(self._answering(), [name])

    def fault(self, name: str) -> InjectionCount:
        row = injections_in_force(self._answering()).get(name)
        return InjectionCount() if row is None else InjectionCount(row["hits"], row["held"])

    def _answering(self) -> Sequence[tuple[str, Partition]]:
        """The partitions whose processes go on: a stopped one would keep us waiting."""
        return [
            (row.name, self._clients[row.name])
            for row in self.launcher.ps(self.cluster)
            if row.state == "running"
        ]

    # -- from outside ----------------------------------------------------------------------

    def crash(self, partition: str) -> None:
        self.launcher.crash(self.cluster, partition)

    def panic(self, partition: str) -> None:
        self.begin(partition, CrashKernel(ASKED_TO_PANIC))
        self.wait(lambda: partition not in self.running, self._image.xpc.disengage_limit)

    def hang(self, partition: str) -> None:
        self.launcher.hang(self.cluster, partition)

    def resume(self, partition: str) -> None:
        self.launcher.resume(self.cluster, partition)

    def boot(self, partition: str) -> None:
        self._clients[partition].close()
        self.launcher.boot(self.cluster, partition)
        self._clients[partition] = connect(partition, self.cluster)

    def reboot(self, partition: str) -> None:
        self._clients[partition].close()
        self.launcher.reboot(self.cluster, partition)
        self._clients[partition] = connect(partition, self.cluster)

    def cut(self, partition: str) -> None:
        self.put_up(f"isolate {partition} --name cut-{partition}")

    def mend(self, partition: str) -> None:
        self.heal(f"cut-{partition}")

    # -- judging ---------------------------------------------------------------------------

    def judge(self, ending: StreamsEnd) -> Sequence[Violation]:
        files = [self._event_log(name) for name in self.partitions]
        # A dead partition is not at rest: what it had begun will never end.
        whole = len(self.running) == len(self.partitions)
        ending = ending if whole else StreamsEnd.CUT
        return judge_stream_files(files, self._image, ending).violations

    def _event_log(self, name: str) -> Path:
        return run_folder(self.cluster) / f"{name}.events.jsonl"
