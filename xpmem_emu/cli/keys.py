"""Keys: made, listed and revoked in a folder that partitions and clients of tcp endpoints use.

What a key is and what it guards is said in `cluster.keys`; these commands choose, ask and show. No
private key is ever printed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.arguments import KEYS, shipped_option
from xpmem_emu.cli.commands import Group
from xpmem_emu.cli.output import Listing, OutputRow, list_options
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.cluster.keys import Capability, Client, Key, KeyFolder, Peer

if TYPE_CHECKING:
    from xpmem_emu.cluster.topology import PartitionSpec

_NARROW = ("name", "is", "partid", "uid", "gids", "may", "state", "private")

_UID = click.option(
    "--uid",
    type=parameters.uid,
    default="0",
    metavar="UID",
    show_default=True,
    help="The uid that the client's simulated tasks run as.",
)
_GIDS = click.option(
    "--gid",
    "gids",
    type=parameters.uid,
    multiple=True,
    metavar="GID",
    help="A group of its tasks; may be given again.",
)


@click.group(cls=Group)
def keys() -> None:
    """Keys that guard tcp endpoints: who may be a partition, who may ask one, and for what."""


@keys.command()
@KEYS
@shipped_option("topology", "Each of its partitions gets a key.", required=True)
@click.option(
    "--client",
    "clients",
    multiple=True,
    default=("operator",),
    show_default=True,
    metavar="NAME",
    help="A client that may do everything; may be given again.",
)
@click.option(
    "--split",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Move each partition's private half to DIR/NAME, to be shown to it alone.",
)
@list_options
@pass_session
def init(
    session: CommandSession,
    folder: Path,
    topology: str,
    clients: tuple[str, ...],
    split: Path | None,
    output: Listing,
) -> None:
    """Make every key that a topology needs and that is not there yet; safe to repeat."""
    from xpmem_emu.cluster.topology import read_topology

    wanted = _wanted(read_topology(topology), clients)
    made = KeyFolder(folder).complete(wanted)
    session.say(f"{len(made)} keys made in {folder}, {len(wanted) - len(made)} were there")
    if split is not None:
        session.say(f"{len(KeyFolder(folder).split(split))} private keys moved to {split}")
    _show(session, KeyFolder(folder), output)


def _wanted(
    partitions: "tuple[PartitionSpec, ...]", clients: tuple[str, ...]
) -> dict[str, Peer | Client]:
    wanted: dict[str, Peer | Client] = {one.name: Peer(one.partid) for one in partitions}
    operator = Client(0, [], Capability.OPERATE)
    for name in clients:
        if name in wanted:
            raise click.UsageError(f"{name} is a partition of the topology; name the client else.")
        wanted[name] = operator
    return wanted


@keys.command()
@click.argument("name")
@KEYS
@click.option(
    "--partition",
    "partid",
    type=parameters.partid,
    metavar="P",
    help="It is the key of this partition, p3 or 3, not of a client.",
)
@_UID
@_GIDS
@click.option(
    "--capability",
    type=click.Choice([one.value for one in Capability]),
    default=Capability.USE.value,
    show_default=True,
    help="What a client may do: look; spawn and use tasks; break things too.",
)
@list_options
@pass_session
def new(
    session: CommandSession,
    name: str,
    folder: Path,
    partid: int | None,
    uid: int,
    gids: tuple[int, ...],
    capability: str,
    output: Listing,
) -> None:
    """Make the key NAME of a client, or of a partition, and let it in."""
    client = Client(uid, list(gids), Capability(capability))
    role = client if partid is None else Peer(partid)
    made = KeyFolder(folder).make({name: role})
    session.say(f"its private half is {folder}/private/{name}.key_secret: show it to nobody")
    session.show("keys", [_row(key, "live", here=True) for key in made], output, _NARROW)


@keys.command()
@KEYS
@list_options
@pass_session
def ls(session: CommandSession, folder: Path, output: Listing) -> None:
    """List all keys of a folder, the revoked ones too."""
    _show(session, KeyFolder(folder), output)


@keys.command()
@click.argument("name", shell_complete=completion.key_names)
@KEYS
@pass_session
def revoke(session: CommandSession, name: str, folder: Path) -> None:
    """Let a key in no more; partitions that run notice within two seconds."""
    KeyFolder(folder).revoke(name)
    session.say(f"the key of {name} is revoked")


def _show(session: CommandSession, folder: KeyFolder, output: Listing) -> None:
    allow, here = folder.read(), folder.private_names()
    rows = [_row(key, "live", key.name in here) for key in allow.keys]
    rows += [_row(key, "revoked", here=False) for key in allow.revoked]
    session.show("keys", rows, output, _NARROW)


def _row(key: Key, state: str, here: bool) -> OutputRow:
    private = "here" if here else "-"
    row: dict[str, object] = {
        "name": key.name,
        "is": "peer",
        "state": state,
        "private": private,
        "public": key.public,
    }
    match key.role:
        case Peer(partid=partid):
            return row | {"partid": partid}
        case Client(uid=uid, gids=gids, capability=may):
            return row | {"is": "client", "uid": uid, "gids": gids, "may": may.value}
