"""Simulated tasks and what they do to their memory: everything that makes a page move.

`task` is what a process asks of its kernel, `vm` what a kernel does by itself, and the files
that mappings can be backed by. Commands that make something print its name alone on stdout.
"""

from dataclasses import replace

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.arguments import FILE, HANDLE, ON_SEVERAL, PARTITION, SIZE, TASK_PARAM, on
from xpmem_emu.cli.commands import Group
from xpmem_emu.cli.look import show_kind
from xpmem_emu.cli.output import Format, Listing, list_options, output_option, show_record
from xpmem_emu.cli.parameters import Handle, TaskRef
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.errors import Signal
from xpmem_emu.kernel import calls

_ADVICE = {
    "dontneed": calls.MADV_DONTNEED,
    "remove": calls.MADV_REMOVE,
    "pageout": calls.MADV_PAGEOUT,
}


@click.group(cls=Group)
def task() -> None:
    """Processes of the emulated partitions, and their memory calls."""


@click.group(cls=Group)
def vm() -> None:
    """What a partition's kernel does by itself, and its files."""


def _print_task(session: CommandSession, ref: TaskRef, output: Format, done: str) -> None:
    result = {"task": str(ref), "partition": ref.partition, "pid": ref.pid}
    click.echo(ref if output.for_people else show_record("task", result, output))
    session.say(f"{done} task {ref}")


def _print_memory(handle: Handle, size: int, output: Format) -> None:
    result = {"handle": str(handle), "address": handle.address, "size": size}
    click.echo(handle if output.for_people else show_record("memory", result, output))


# -- tasks ------------------------------------------------------------------------------------


@task.command()
@on("The partition that runs it.", required=True)
@click.option("--name", default="", metavar="NAME", help="What task ls calls it.")
@click.option("--uid", type=parameters.uid, default="0", metavar="UID", help="Its user.")
@click.option(
    "--gid",
    "gids",
    type=parameters.uid,
    multiple=True,
    metavar="GID",
    help="One of its groups; may be repeated.",
)
@output_option
@pass_session
def spawn(
    session: CommandSession, where: str, name: str, uid: int, gids: tuple[int, ...], output: Format
) -> None:
    """Start a task that outlives this command; prints its name."""
    where = session.names.named(where)
    with session.connect(where) as partition:
        made = partition.spawn(name=name, uid=uid, gids=list(gids), detached=True)
        ref = TaskRef(where, partition.facts.boot, made.pid)
    _print_task(session, ref, output, "started")


@task.command()
@TASK_PARAM
@click.option(
    "--signal",
    type=parameters.signal,
    default="KILL",
    metavar="SIG",
    help="Which.",
    shell_complete=completion.words(each.name for each in Signal),
)
@pass_session
def kill(session: CommandSession, ref: TaskRef, signal: int) -> None:
    """Send a signal; returns when a killed task is gone."""
    with session.task(ref) as task:
        task.kill(signal, "xpmem-emu task kill")
    session.say(f"sent signal {signal} to {ref}")


@task.command("exit")
@TASK_PARAM
@click.option("--status", type=click.IntRange(0, 255), default=0, help="Its exit status.")
@pass_session
def exit_(session: CommandSession, ref: TaskRef, status: int) -> None:
    """Let a task end by itself; returns when its address space is gone."""
    with session.task(ref) as task:
        task.exit(status)
    session.say(f"{ref} is gone")


@task.command()
@TASK_PARAM
@output_option
@pass_session
def fork(session: CommandSession, ref: TaskRef, output: Format) -> None:
    """Fork a task (copy on write: importers are recalled); prints the child's name."""
    with session.task(ref) as task:
        child = task.fork()
    _print_task(session, replace(ref, pid=child.pid), output, "forked")


@task.command()
@ON_SEVERAL
@list_options
@pass_session
def ls(session: CommandSession, where: tuple[str, ...] | None, output: Listing) -> None:
    """List the tasks."""
    show_kind(session, "tasks", where, output)


# -- memory of a task -------------------------------------------------------------------------


@task.command()
@TASK_PARAM
@SIZE
@click.option(
    "--prot",
    type=parameters.prot,
    default="rw",
    metavar="PROT",
    help="none, r or rw.",
    shell_complete=completion.words(parameters.PROTECTIONS),
)
@click.option(
    "--file",
    default="",
    metavar="FILE",
    help="Map this file of the partition, shared.",
    shell_complete=completion.objects("files"),
)
@click.option("--offset", type=parameters.size, default="0", metavar="SIZE", help="In the file.")
@click.option("--uncached", is_flag=True, help="Uncached memory, for amo.")
@click.option("--mspec", is_flag=True, help="Fetch-and-op pages of mspec: uncached and shared.")
@click.option(
    "--at",
    type=parameters.parse_number,
    default="0",
    metavar="ADDR",
    help="Map exactly here, over what is there.",
)
@output_option
@pass_session
def mmap(
    session: CommandSession,
    ref: TaskRef,
    size: int,
    prot: int,
    file: str,
    offset: int,
    uncached: bool,
    mspec: bool,
    at: int,
    output: Format,
) -> None:
    """Map memory; prints its handle."""
    flags = calls.MAP_SHARED if file or mspec else calls.MAP_PRIVATE
    flags |= 0 if file else calls.MAP_ANONYMOUS
    flags |= calls.MAP_MSPEC if mspec else 0
    flags |= calls.MAP_FIXED if at else 0
    flags |= calls.MAP_UNCACHED if uncached else 0
    with session.task(ref) as task:
        address = task.mmap(size, prot, flags, at, file, offset)
    _print_memory(Handle(ref, address), size, output)


@task.command()
@HANDLE
@SIZE
@pass_session
def munmap(session: CommandSession, handle: Handle, size: int) -> None:
    """Unmap SIZE bytes; importers of these pages are recalled first."""
    with session.task(handle.task) as task:
        task.munmap(handle.place, size)
    session.say(f"unmapped {size} bytes at {handle}")


@task.command()
@HANDLE
@SIZE
@click.argument(
    "prot",
    type=parameters.prot,
    metavar="none|r|rw",
    shell_complete=completion.words(parameters.PROTECTIONS),
)
@pass_session
def mprotect(session: CommandSession, handle: Handle, size: int, prot: int) -> None:
    """Change the protection of SIZE bytes."""
    with session.task(handle.task) as task:
        task.mprotect(handle.place, size, prot)
    session.say(f"protected {size} bytes at {handle}")


@task.command()
@HANDLE
@SIZE
@click.argument("advice", type=click.Choice(list(_ADVICE)))
@pass_session
def madvise(session: CommandSession, handle: Handle, size: int, advice: str) -> None:
    """Advise about SIZE bytes: drop them, punch them out of their file, or page them out."""
    with session.task(handle.task) as task:
        task.madvise(handle.place, size, _ADVICE[advice])
    session.say(f"advised {advice} for {size} bytes at {handle}")


@task.command()
@HANDLE
@click.argument("old_size", type=parameters.size, metavar="OLD_SIZE")
@click.argument("new_size", type=parameters.size, metavar="NEW_SIZE")
@click.option(
    "--to",
    "target",
    type=parameters.parse_number,
    default="0",
    metavar="ADDR",
    help="Move it exactly here.",
)
@output_option
@pass_session
def mremap(
    session: CommandSession,
    handle: Handle,
    old_size: int,
    new_size: int,
    target: int,
    output: Format,
) -> None:
    """Resize or move a mapping; prints its new handle."""
    flags = calls.MREMAP_MAYMOVE | (calls.MREMAP_FIXED if target else 0)
    with session.task(handle.task) as task:
        address = task.mremap(handle.place, old_size, new_size, flags, target)
    _print_memory(Handle(handle.task, address), new_size, output)


# -- the kernel by itself ---------------------------------------------------------------------


@vm.command()
@PARTITION
@click.option(
    "--pages",
    type=parameters.pages,
    default="64",
    show_default=True,
    metavar="N",
    help="How many frames to free at most.",
)
@click.option(
    "--of",
    "handle",
    type=parameters.handle,
    metavar="HANDLE",
    shell_complete=completion.objects("handles"),
    help="Only of --size bytes of a task's memory, which begin here.",
)
@click.option("--size", type=parameters.size, default="0", metavar="SIZE", help="See --of.")
@pass_session
def reclaim(
    session: CommandSession, where: str, pages: int, handle: Handle | None, size: int
) -> None:
    """Free frames by swapping out or dropping pages (try_to_unmap); prints how many."""
    named = session.names.named
    if handle and (named(handle.task.partition) != named(where) or not size):
        raise click.UsageError(f"--of takes a handle {where}:BOOT:PID:0xADDR, and --size.")
    boot, pid, address = (handle.task.boot, handle.task.pid, handle.place) if handle else (0, 0, 0)
    with session.connect(where, boot) as partition:
        click.echo(partition.reclaim(pages, pid, address, size))


@vm.command()
@HANDLE
@SIZE
@pass_session
def migrate(session: CommandSession, handle: Handle, size: int) -> None:
    """Move the pages of SIZE bytes to other frames; prints how many moved."""
    with session.task(handle.task) as task:
        click.echo(task.migrate(handle.place, size))


@vm.command()
@PARTITION
@FILE
@SIZE
@pass_session
def creat(session: CommandSession, where: str, file: str, size: int) -> None:
    """Make a file of SIZE zero bytes in a partition, to be mapped."""
    with session.connect(where) as partition:
        partition.creat(file, size)
    session.say(f"made {file} on {where}")


@vm.command()
@PARTITION
@FILE
@SIZE
@pass_session
def truncate(session: CommandSession, where: str, file: str, size: int) -> None:
    """Cut or extend a file; mappings beyond its end are torn down, importers recalled."""
    with session.connect(where) as partition:
        partition.truncate(file, size)
    session.say(f"{file} on {where} now has {size} bytes")


@vm.command()
@PARTITION
@FILE
@pass_session
def writeback(session: CommandSession, where: str, file: str) -> None:
    """Write the dirty pages of a file back (page_mkclean); prints how many."""
    with session.connect(where) as partition:
        click.echo(partition.writeback(file))


@vm.command()
@PARTITION
@FILE
@pass_session
def unlink(session: CommandSession, where: str, file: str) -> None:
    """Take the name of a file away; its pages live until the last mapping is gone."""
    with session.connect(where) as partition:
        partition.unlink(file)
    session.say(f"unlinked {file} on {where}")
