"""Secondary MMUs of tasks: a GRU context, a guest, a mirror, and accesses through them."""

import click

from xpmem_emu.cli import parameters
from xpmem_emu.cli.arguments import HANDLE, SIZE, TASK_PARAM
from xpmem_emu.cli.commands import Group
from xpmem_emu.cli.parameters import Handle, TaskRef
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.kernel.device_calls import DEVICES

_DEVICE = click.argument("kind", type=click.Choice(DEVICES), metavar="DEVICE")


@click.group(cls=Group)
def device() -> None:
    """Devices that translate a task's addresses by themselves."""


@device.command()
@TASK_PARAM
@pass_session
def gru(session: CommandSession, ref: TaskRef) -> None:
    """Give a task a context of its partition's GRU."""
    with session.task(ref) as task:
        task.gru_attach()
    session.say(f"{ref} has a context of the GRU")


@device.command()
@TASK_PARAM
@click.option("--references", is_flag=True, help="It holds the pages that it shadows.")
@pass_session
def guest(session: CommandSession, ref: TaskRef, references: bool) -> None:
    """Start a virtual machine in a task; `device slot` gives it memory."""
    with session.task(ref) as task:
        task.guest_attach(references)
    session.say(f"{ref} runs a guest; next: xpmem-emu device slot HANDLE SIZE GUEST_ADDRESS")


@device.command()
@HANDLE
@SIZE
@click.argument("start", type=parameters.parse_number, metavar="GUEST_ADDRESS")
@pass_session
def slot(session: CommandSession, handle: Handle, size: int, start: int) -> None:
    """Give a guest memory of its task; with SIZE 0 the slot at GUEST_ADDRESS goes."""
    with session.task(handle.task) as task:
        task.guest_slot(start, size, handle.place)
    session.say(f"the guest of {handle.task} has {size} bytes of {handle} at {start:#x}")


@device.command()
@HANDLE
@SIZE
@pass_session
def mirror(session: CommandSession, handle: Handle, size: int) -> None:
    """Mirror SIZE bytes of a task's memory, as HMM does."""
    with session.task(handle.task) as task:
        task.mirror_attach(handle.place, size)
    session.say(f"{size} bytes of {handle} are mirrored")


@device.command("load")
@HANDLE
@_DEVICE
@SIZE
@click.option("--text", is_flag=True, help="As UTF-8 text rather than hex digits.")
@pass_session
def load_through(session: CommandSession, handle: Handle, kind: str, size: int, text: bool) -> None:
    """Read SIZE bytes through a device and print them. A guest takes addresses of its own."""
    with session.task(handle.task) as task:
        data = task.device_load(kind, handle.place, size)
    click.echo(data.decode(errors="backslashreplace") if text else data.hex())


@device.command("store")
@HANDLE
@_DEVICE
@click.argument("text", metavar="DATA")
@pass_session
def store_through(session: CommandSession, handle: Handle, kind: str, text: str) -> None:
    """Write DATA as UTF-8 text through a device."""
    data = text.encode(errors="surrogateescape")
    with session.task(handle.task) as task:
        task.device_store(kind, handle.place, data)
    session.say(f"stored {len(data)} bytes at {handle} through the {kind}")


@device.command("detach")
@TASK_PARAM
@_DEVICE
@pass_session
def detach_device(session: CommandSession, ref: TaskRef, kind: str) -> None:
    """Take a device away from a task."""
    with session.task(ref) as task:
        task.device_detach(kind)
    session.say(f"{ref} has no {kind} any more")
