"""Clusters: up, down, ps, status, and boot for one partition in the foreground.

A cluster is a run folder and the processes that its state file names; everything about it is the
launcher's business (`backend.processes`). These commands choose, ask and show.
"""

import errno
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xpmem_emu.backend.strays import strays_of
from xpmem_emu.cli import parameters
from xpmem_emu.cli.arguments import GUARD, INSECURE, PARTITION, shipped_option
from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import CommandFailed, ExitCode, exit_code
from xpmem_emu.cli.interrupts import terminated_like_interrupted
from xpmem_emu.cli.names import Names
from xpmem_emu.cli.output import Format, Listing, OutputRow, list_options
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.cluster.descriptors import open_files
from xpmem_emu.cluster.paths import KEYS_VARIABLE, arena_folder, arena_note, run_root
from xpmem_emu.errors import KernelError
from xpmem_emu.units import SECOND

if TYPE_CHECKING:
    from xpmem_emu.client.blocking import Partition
    from xpmem_emu.client.failures import XpmemError

_POLL_S = 0.2
_CROWDED = 8
_PS = ("partition", "pid", "state", "domain", "image", "resident_bytes", "cpu_ns")
_STATUS_S = 5.0
"""A partition whose kernel says nothing for so long has no status."""
_STATUS = ("partition", "state", "boot", "uptime_ns", "peers", "apart")


def clusters() -> list[str]:
    """Names of the clusters of this user on this machine: of their folders, and of partitions that
    live though a cleaner took those."""
    arenas = arena_folder("x").parent
    names = {folder.name for folder in run_root().glob("*")}
    return sorted(names | {file.name.partition("/")[0] for file in open_files(arenas)})


def _cluster_row(name: str) -> OutputRow:
    from xpmem_emu.backend import processes

    try:
        found = processes.ps(name)
    except KernelError:
        found = []
    states = [one.state for one in found]
    strays = len(strays_of(name))
    whole = states and set(states) == {"running"} and not strays
    return {
        "cluster": name,
        "state": "up" if whole else "dead" if "running" not in states else "part",
        "partitions": len(states),
        **{each: states.count(each) for each in ("running", "stopped", "dead")},
        "strays": strays,
        "resident_bytes": sum(one.resident for one in found),
    }


@click.command(cls=Command)
@click.option(
    "-n",
    "count",
    type=click.IntRange(1, 256),
    metavar="N",
    help="How many partitions: p0, p1, ...  [default: 3]",
)
@shipped_option("topology", "A topology instead: shipped, or a .toml.")
@shipped_option(
    "image",
    "What they boot: a shipped image, or a .toml file.  [default: laptop; patient "
    f"where there are more than {_CROWDED} of them for each processor]",
)
@click.option(
    "--memory",
    type=parameters.size,
    metavar="SIZE",
    help="Memory of each partition.  [default: the image's]",
)
@click.option("--event-log", is_flag=True, help="Keep each partition's event stream in a file.")
@click.option(
    "--timeout",
    type=parameters.duration,
    default="60s",
    show_default=True,
    metavar="TIME",
    help="How long they may take to become active with each other.",
)
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C, then take it down.")
@GUARD
@INSECURE
@pass_session
def up(
    session: CommandSession,
    count: int | None,
    topology: str | None,
    image: str | None,
    memory: int | None,
    event_log: bool,
    timeout: int,
    foreground: bool,
    keys: Path | None,
    insecure: bool,
) -> None:
    """Start a cluster; returns when all its partitions are active with each other."""
    from xpmem_emu.cluster.topology import ClusterSpec, numbered_partitions, read_topology

    if topology and count:
        raise click.UsageError("Give either -n or --topology.")
    partitions = read_topology(topology) if topology else numbered_partitions(count or 3)
    spec = ClusterSpec(
        session.cluster,
        partitions,
        image or _image_for(session, len(partitions)),
        memory,
        event_log,
        keys=_guard(session, keys, insecure),
        insecure=insecure,
    )
    with terminated_like_interrupted():
        if note := arena_note():
            session.say(note)
        with session.steps(f"starting {session.cluster}") as progress:
            session.launcher().up(spec, progress, timeout / SECOND)
        names = ", ".join(one.name for one in partitions)
        session.say(f"cluster {session.cluster} is up: {names}")
        if foreground:
            _stay(session)


def _image_for(session: CommandSession, count: int) -> str:
    """The image that so many partitions boot when nobody says which: in a crowd each waits longer
    for a processor than the silence after which laptop gives somebody up."""
    processors = len(os.sched_getaffinity(0))
    if count <= _CROWDED * processors:
        return "laptop"
    session.say(f"{count} partitions on {processors} processors: they boot the image patient")
    return "patient"


def _guard(session: CommandSession, keys: Path | None, insecure: bool) -> str:
    """The folder of keys, absolute; says loudly when there is none to be."""
    if insecure and keys:
        raise click.UsageError(f"--insecure has no use for --keys (or {KEYS_VARIABLE}).")
    if insecure:
        session.warn(
            "INSECURE: tcp endpoints are without keys; whoever reaches one can do "
            "everything with its partition"
        )
        return ""
    return str(keys.absolute()) if keys else ""


def _stay(session: CommandSession) -> None:
    """Until interrupted, or until no partition runs any more; then the cluster is ended."""
    from xpmem_emu.backend import processes

    session.say("in the foreground; Ctrl-C takes it down")
    try:
        while any(one.state != "dead" for one in processes.ps(session.cluster)):
            time.sleep(_POLL_S)
        raise CommandFailed("all partitions have died", "xpmem-emu up, and then xpmem-emu logs P")
    finally:
        processes.down(session.cluster)
        session.say(f"cluster {session.cluster} is down")


@click.command(cls=Command)
@pass_session
def down(session: CommandSession) -> None:
    """End a cluster: exactly the processes that `up` started, and all that they left."""
    try:
        with session.steps(f"ending {session.cluster}") as progress:
            session.launcher().down(session.cluster, progress)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        session.say(f"cluster {session.cluster} was not up: there is nothing to end")
    else:
        session.say(f"cluster {session.cluster} is down")


@click.command(cls=Command)
@pass_session
def clean(session: CommandSession) -> None:
    """Remove what the partitions of a cluster left on this host, once none of them lives here."""
    alive = session.launcher().clean(session.cluster)
    session.say(
        f"nothing is removed: {', '.join(alive)} of {session.cluster} live here"
        if alive
        else f"nothing is left of {session.cluster} here"
    )


@click.command(cls=Command)
@click.option("--all", "every", is_flag=True, help="List this user's clusters here instead.")
@list_options
@pass_session
def ps(session: CommandSession, every: bool, output: Listing) -> None:
    """List the processes of a cluster, or all clusters."""
    if every:
        rows = [_cluster_row(name) for name in clusters()]
        session.show("clusters", rows, output)
        return
    rows = []
    for process in session.launcher().ps(session.cluster):
        row = asdict(process)
        row["partition"] = row.pop("name")
        row["resident_bytes"] = row.pop("resident")
        row["cpu_ns"] = round(row.pop("cpu_s") * SECOND)
        rows.append(row)
    session.show("processes", rows, output, _PS)


@click.command(cls=Command)
@list_options
@pass_session
def status(session: CommandSession, output: Listing) -> ExitCode:
    """Tell how each partition is and whom it knows; exit code 1 when one is not well."""
    rows = session.in_names((_status_row(session, *each) for each in session.answers()), output)
    ok = all(row["state"] == "well" for row in rows)
    if output.format is Format.TABLE:
        rows = [_briefly(row) for row in rows]
    session.show("status", rows, output, _STATUS)
    return exit_code(ok)


def _status_row(
    session: CommandSession, name: str, partition: "Partition | XpmemError"
) -> OutputRow:
    """What a partition said, with its peers by state and one word on how it is."""
    try:
        if isinstance(partition, OSError):
            raise partition
        partition.timeout = _STATUS_S
        answer = partition.status()
    except OSError as error:
        return {"partition": name, "state": "no answer", "error": session.typeable(str(error))}
    peers = answer["peers"]
    assert isinstance(peers, dict)
    states = {partid: peer["state"] for partid, peer in peers.items()}
    state = "well" if all(state == "ACTIVE" for state in states.values()) else "not with all"
    return {"partition": name, "state": state} | answer | {"peers": states}


def _briefly(row: OutputRow) -> OutputRow:
    """A row whose peers fit into a line, however many there are: those that are not active."""
    peers = row.get("peers", {})
    assert isinstance(peers, dict)
    apart = {name: state for name, state in peers.items() if state != "ACTIVE"}
    active = f"{len(peers) - len(apart)}/{len(peers)} active" if "peers" in row else ""
    return {**row, "peers": active, "apart": apart or row.get("error")}


@click.command(cls=Command)
@PARTITION
@shipped_option("topology", "Who the partitions are and where each can be reached.", required=True)
@shipped_option("image", "What it boots where the topology does not say.", default="laptop")
@click.option(
    "--memory", type=parameters.size, metavar="SIZE", help="Its memory.  [default: the image's]"
)
@click.option(
    "--event-log",
    is_flag=True,
    envvar="XPMEM_EMU_EVENT_LOG",
    help="Keep its event stream in a file.",
)
@GUARD
@INSECURE
@pass_session
def boot(
    session: CommandSession,
    where: str,
    topology: str,
    image: str,
    memory: int | None,
    event_log: bool,
    keys: Path | None,
    insecure: bool,
) -> None:
    """Be one partition, in the foreground: what a container runs. SIGTERM shuts it down."""
    from xpmem_emu.backend.processes import boot_one
    from xpmem_emu.cluster.topology import ClusterSpec, read_topology
    from xpmem_emu.kernel.boot import boot_kernel

    partitions = read_topology(topology)
    spec = ClusterSpec(
        session.cluster,
        partitions,
        image,
        memory,
        event_log,
        keys=_guard(session, keys, insecure),
        insecure=insecure,
    )
    names = Names(session.cluster, {one.name: one.partid for one in partitions})
    code = boot_one(spec, names.find(where) or where, boot_kernel)
    if code:
        raise CommandFailed(f"{where} stopped with code {code}", "read what it logged above")
