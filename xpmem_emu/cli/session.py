"""One run of the command: which cluster it talks to, how talkative it is, what it is doing.

Every command finds the `Session` in the click context. The session reaches partitions through an
`Emulator`: the live one in production, one made of plain Python objects in the tests of the
command line.
"""

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import click

from xpmem_emu.cli.at_once import at_once
from xpmem_emu.cli.bars import Bar
from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.lines import of_pieces, of_steps, on_terminal
from xpmem_emu.cli.names import Names
from xpmem_emu.cluster.paths import DEFAULT_CLUSTER

if TYPE_CHECKING:
    from xpmem_emu.backend.launcher import Launcher
    from xpmem_emu.backend.starting import Progress as StepProgress
    from xpmem_emu.cli.output import Format, Listing, OutputRow
    from xpmem_emu.cli.parameters import TaskRef
    from xpmem_emu.client.blocking import Partition, Task
    from xpmem_emu.client.failures import XpmemError

_NOBODY = (errno.ENOENT, errno.ECONNREFUSED)
"""There is no process behind the console of a partition that the cluster has."""
_CONNECTS_AT_ONCE = 16
_COMMAND = re.compile(
    r"\bxpmem-emu (?!-|(?:run|sim|judge|keys|demo|completion)\b)(?![^;,`]*--cluster\b)"
)
"""A command that is about a cluster and does not say which."""


class Emulator(Protocol):
    """How the command line reaches a cluster."""

    def connect(self, partition: str, cluster: str, boot: int = 0) -> "Partition":
        """The partition, ready for calls. `boot`: which one is meant, 0: whichever runs. Raises
        OSError with cause and remedy."""

    def partitions(self, cluster: str) -> Mapping[str, int]:
        """Names and partids of the partitions that the cluster was started with. Raises OSError
        or KernelError."""

    def stands_still(self, partition: str, cluster: str) -> bool:
        """Whether its process is known to be stopped: then it answers nobody."""


class LiveEmulator:
    """Real partition processes, by way of the client library."""

    def connect(self, partition: str, cluster: str, boot: int = 0) -> "Partition":
        from xpmem_emu.client.blocking import connect

        return connect(partition, cluster=cluster, boot=boot)

    def partitions(self, cluster: str) -> Mapping[str, int]:
        from xpmem_emu.cluster.locator import locations

        return {one.name: one.partid for one in locations(cluster).values()}

    def stands_still(self, partition: str, cluster: str) -> bool:
        from xpmem_emu.cluster.liveness import is_stopped
        from xpmem_emu.cluster.locator import Home, home_of
        from xpmem_emu.cluster.state import read_state

        if home_of(cluster) is not Home.HERE:
            return False
        process = read_state(cluster).partition(partition)
        return is_stopped(process.pid, process.started)


@dataclass(slots=True)
class CommandSession:
    """State of one run. `verbosity` -1: only errors; 0: what was done; 1: each step of it."""

    emulator: Emulator = field(default_factory=LiveEmulator)
    cluster: str = DEFAULT_CLUSTER
    verbosity: int = 0
    debug: bool = False
    command: str = ""
    unanswered: list[str] = field(default_factory=list)
    """Partitions whose part of an answer is missing, though they live."""
    _names: Names | None = None

    def say(self, text: str) -> None:
        """Tells people what was done, or what to do next."""
        if self.verbosity >= 0:
            click.echo(self.typeable(text), err=True)

    def detail(self, text: str) -> None:
        """Tells people who asked with -v."""
        if self.verbosity > 0:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Tells even those who asked for quiet."""
        click.echo(f"warning: {self.typeable(text)}", err=True)

    def typeable(self, text: str) -> str:
        """A text whose commands are about this cluster, when it is not the one that commands are
        about by themselves."""
        if self.cluster == DEFAULT_CLUSTER:
            return text
        return _COMMAND.sub(f"xpmem-emu --cluster {self.cluster} ", text)

    def launcher(self) -> "Launcher":
        """Who ends, stops and boots the partitions of this cluster. Raises KernelError."""
        from xpmem_emu.backend.launcher import launcher_of

        return launcher_of(self.cluster)

    def connect(self, partition: str, boot: int = 0) -> "Partition":
        """One partition of this cluster, as a context manager. `boot`: which one is meant, 0:
        whichever runs. Raises OSError with a remedy about that partition, at once where it is
        known to be dead or stopped."""
        from xpmem_emu.client.failures import XpmemError, xpmem_error

        name = self.names.named(partition)
        self.detail(f"connecting to {name} of cluster {self.cluster}")
        if self.emulator.stands_still(name, self.cluster):
            why = f"{name} stands still, as after a hang"
            raise xpmem_error(errno.ETIMEDOUT, why, f"xpmem-emu resume {name}")
        try:
            return self.emulator.connect(name, self.cluster, boot)
        except XpmemError as error:
            if error.errno in _NOBODY:
                error.remedy = f"xpmem-emu reboot {name}"
            raise

    @contextmanager
    def task(self, ref: "TaskRef") -> Iterator["Task"]:
        """The task of that name. Raises OSError ESTALE when it is of another boot than runs."""
        with self.connect(ref.partition, ref.boot) as partition:
            yield partition.task(ref.pid)

    @contextmanager
    def owner(self, ident: int) -> Iterator["Task"]:
        """The task that a segid or apid is of, as the id itself says. Raises CommandFailed ESTALE
        when it is of another boot: an id has only a byte of the boot's number."""
        from xpmem_emu.xpmem import ids

        parts = ids.unpack_id(ident)
        with self.connect(name := self.names.called(parts.partid)) as partition:
            if parts.boot != partition.facts.boot & 0xFF:
                raise CommandFailed(
                    f"{ident:#x} is of another boot of {name} than {partition.facts.boot}, which "
                    "runs now",
                    "xpmem-emu get segments, or xpmem-emu get permits",
                    number=errno.ESTALE,
                )
            yield partition.task(parts.tgid)

    @property
    def names(self) -> Names:
        """What the partitions of this cluster are called. Raises OSError or KernelError."""
        if self._names is None or self._names.cluster != self.cluster:
            self._names = Names(self.cluster, self.emulator.partitions(self.cluster))
        return self._names

    def said(self, text: str) -> str:
        """What a partition said, in names, where they are known already."""
        known = self._names is not None and self._names.cluster == self.cluster
        return self.names.said(text) if known else text

    def partitions(self, chosen: Sequence[str] = ()) -> Sequence[str]:
        """The names of `chosen`, or of all partitions of the cluster. Raises CommandFailed for an
        unknown one."""
        named = dict.fromkeys(map(self.names.named, chosen))
        return list(named or self.names.partids)

    def show(
        self,
        kind: str,
        rows: "Sequence[OutputRow]",
        output: "Listing",
        narrow: Sequence[str] = (),
        nothing: str = "",
    ) -> None:
        """Prints a list. An empty one that is no document is said to be one: `nothing`."""
        from xpmem_emu.cli.output import show_rows

        if rows or output.is_document:
            click.echo(show_rows(kind, rows, output, narrow))
        else:
            self.say(nothing or f"no {kind}")

    def in_names(
        self, rows: "Iterable[OutputRow]", output: "Format | Listing"
    ) -> "list[OutputRow]":
        """What kernels said, as it is shown: partitions by their names."""
        return [self.names.shown(row, for_people=output.for_people) for row in rows]

    def survey(self, chosen: Sequence[str] = ()) -> Iterator[tuple[str, "Partition"]]:
        """Each partition in turn, connected. One that does not answer is warned about and left
        out, unless none answers: then its error is raised. One that has a process and is silent
        makes the answer a part, and the exit code `unknown`."""
        failure: XpmemError | None = None
        answered = 0
        for name, answer in self.answers(chosen):
            if isinstance(answer, OSError):
                failure = answer
                self.warn(f"{name} does not answer: {self.said(str(answer))}")
                if answer.errno == errno.ETIMEDOUT:
                    self.unanswered.append(name)
                continue
            answered += 1
            yield name, answer
        if failure is not None and not answered:
            raise failure

    def answers(self, chosen: Sequence[str] = ()) -> Iterator[tuple[str, "Partition | XpmemError"]]:
        """Each partition in turn, connected for as long as it is looked at, or why it is not."""
        from xpmem_emu.client.failures import XpmemError

        names = self.partitions(chosen)
        connects = at_once(self.connect, names, _CONNECTS_AT_ONCE)
        try:
            for name in names:
                try:
                    partition = connects.pop(name).result()
                except XpmemError as error:
                    yield name, error
                    continue
                with partition:
                    yield name, partition
        finally:
            for left in connects.values():  # where the caller has seen enough
                with suppress(OSError), left.result():
                    pass

    @contextmanager
    def transfer(
        self, label: str, total: int, hidden: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """Progress of a copy of `total` bytes: yields a function to call with bytes done."""
        tell = None if hidden or on_terminal() else of_pieces(self.say)
        done = 0
        with Bar(label, total, sizes=True, hidden=hidden or self.verbosity < 0) as bar:

            def advance(count: int) -> None:
                nonlocal done
                done += count
                bar.reach(done, total)
                if tell is not None:
                    tell(f"{label}: {done} of {total} bytes")

            yield advance

    @contextmanager
    def steps(self, label: str) -> Iterator["StepProgress"]:
        """Progress in steps: yields a function to call with how many are done, of how many, and
        what the last one was."""
        tell = self.detail if self.verbosity > 0 or on_terminal() else of_steps(self.say)
        with Bar(label, None, sizes=False, hidden=self.verbosity < 0) as bar:

            def advance(done: int, total: int, what: str) -> None:
                tell(what)
                bar.reach(done, total)

            yield advance


pass_session = click.make_pass_decorator(CommandSession)
