"""Breaking things on purpose: faults, partitions of the cluster, and kernels.

Faults live in the processes of the partitions concerned and end with them, with `fault reset`, or
when their time is up. The grammar is that of docs/faults.md, the same as in scenario files. What
breaks a process (crash, hang) is the launcher's business; nothing here knows what a fault does.
"""

import errno

import click

from xpmem_emu.cli import completion, faulting, parameters
from xpmem_emu.cli.arguments import ON_SEVERAL
from xpmem_emu.cli.commands import Command, Group
from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.fault_words import complete_injection, held_text
from xpmem_emu.cli.look import show_kind
from xpmem_emu.cli.output import (
    Format,
    Listing,
    OutputRow,
    list_options,
    output_option,
    show_record,
)
from xpmem_emu.cli.session import CommandSession, pass_session
from xpmem_emu.client.cluster_injections import release_injections
from xpmem_emu.inject.rules import Membership

_PASS_ON = {"ignore_unknown_options": True}
_SEED = click.option(
    "--seed",
    type=parameters.parse_number,
    default=None,
    metavar="N",
    help="Of its random draws.  [default: drawn]",
)
_WHO = click.argument(
    "where", type=parameters.parse_partitions, metavar="P,...", shell_complete=completion.several
)
_WORDS = click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="FAULT...",
    shell_complete=complete_injection,
)


# -- faults -----------------------------------------------------------------------------------


@click.group(cls=Group)
def fault() -> None:
    """Faults of messages, links, membership, clocks, pace and memory; see docs/faults.md."""


@fault.command(context_settings=_PASS_ON)
@_WORDS
@_SEED
@output_option
@pass_session
def add(session: CommandSession, words: tuple[str, ...], seed: int | None, output: Format) -> None:
    """Put up a fault, such as: link p0->p1 delay 20ms --jitter 5ms --for 30s; prints its name."""
    _put_up(session, " ".join(words), seed, output)


@fault.command()
@ON_SEVERAL
@list_options
@pass_session
def ls(session: CommandSession, where: tuple[str, ...] | None, output: Listing) -> None:
    """List the faults in force, with how often each hit and what it holds back."""
    show_kind(session, "faults", where, output)


@fault.command()
@click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.objects("faults")
)
@pass_session
def rm(session: CommandSession, names: tuple[str, ...]) -> None:
    """Heal faults by name; what they held back goes on its way."""
    session.say(f"healed {', '.join(faulting.heal_everywhere(session, names))}")


@fault.command()
@pass_session
def reset(session: CommandSession) -> None:
    """Heal every fault and clear every failpoint."""
    healed: dict[str, None] = {}
    for _, partition in session.survey():
        healed |= dict.fromkeys(partition.fault_reset())
        partition.failpoint_clear()
    session.say(f"healed {', '.join(healed) or 'nothing: there was no fault'}")


def _put_up(session: CommandSession, text: str, seed: int | None, output: Format) -> None:
    row = faulting.put_up(session, faulting.read_injection(session, text), seed)
    click.echo(row["name"] if output.for_people else show_record("fault", row, output))
    session.say(f"in force: {row['fault']} (seed {row['seed']})")


# -- shortcuts --------------------------------------------------------------------------------


@click.command(cls=Command)
@click.argument(
    "sides", nargs=-1, required=True, metavar="SIDE...", shell_complete=completion.several
)
@click.option(
    "--mode",
    type=click.Choice([each.value for each in Membership]),
    default=None,
    help="How.  [default: split; isolate for one side]",
)
@click.option("--for", "duration", metavar="TIME", default=None, help="Heal it after this long.")
@output_option
@pass_session
def partition(
    session: CommandSession,
    sides: tuple[str, ...],
    mode: str | None,
    duration: str | None,
    output: Format,
) -> None:
    """Cut the cluster into sides that do not reach each other, as in: partition p0,p1 p2."""
    chosen = mode or ("split" if len(sides) > 1 or "|" in sides[0] else "isolate")
    words = [chosen, "|".join(sides)] + (["--for", duration] if duration else [])
    _put_up(session, " ".join(words), None, output)


@click.command(cls=Command)
@pass_session
def heal(session: CommandSession) -> None:
    """Undo every `partition`: everybody reaches everybody again, other faults stay."""
    kinds = {each.value for each in Membership}
    names = [str(row["name"]) for row in faulting.in_force(session) if row["kind"] in kinds]
    healed = faulting.heal_everywhere(session, names)
    session.say(f"healed {', '.join(healed) or 'nothing: the cluster is whole'}")


@click.command(cls=Command, context_settings=_PASS_ON)
@click.argument(
    "words",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[LINK] [OPTION...]",
    shell_complete=held_text,
)
@output_option
@pass_session
def hold(session: CommandSession, words: tuple[str, ...], output: Format) -> None:
    """Hold messages back until `release-held`, as in: hold p0->p1 --match type=FAULT_REPLY."""
    link = ["link", words[0]] if words and not words[0].startswith("-") else []
    rest = words[1:] if link else words
    _put_up(session, " ".join([*link, "hold", *rest]), None, output)


@click.command("release-held", cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=completion.objects("faults"))
@click.option("--keep", is_flag=True, help="Go on holding what comes from now on.")
@pass_session
def release_held(session: CommandSession, names: tuple[str, ...], keep: bool) -> None:
    """Let held messages go, of the named faults or of every hold, and end holding."""
    rows = faulting.in_force(session)
    chosen = list(names) or [str(row["name"]) for row in rows if row["kind"] == "hold"]
    if not chosen:
        raise CommandFailed("nothing is held", "xpmem-emu hold --match type=FAULT_REPLY")
    held = sum(int(str(row["held"])) for row in rows if row["name"] in chosen)
    if keep:
        release_injections(session.survey(), chosen)
    else:
        faulting.heal_everywhere(session, chosen)
    session.say(f"released {held} messages of {', '.join(chosen)}")


# -- processes --------------------------------------------------------------------------------


@click.command(cls=Command)
@_WHO
@pass_session
def crash(session: CommandSession, where: tuple[str, ...]) -> None:
    """Kill partitions without a word (SIGKILL); nobody is told."""
    launcher = session.launcher()
    for name in session.partitions(where):
        launcher.crash(session.cluster, name)
        session.say(f"{name} is gone; boot it with: xpmem-emu reboot {name}")


@click.command(cls=Command)
@_WHO
@pass_session
def hang(session: CommandSession, where: tuple[str, ...]) -> None:
    """Stop partitions where they are (SIGSTOP), maybe inside a store."""
    launcher = session.launcher()
    for name in session.partitions(where):
        launcher.hang(session.cluster, name)
        session.say(f"{name} stands still; wake it with: xpmem-emu resume {name}")


@click.command(cls=Command)
@_WHO
@pass_session
def resume(session: CommandSession, where: tuple[str, ...]) -> None:
    """Let stopped partitions go on as if nothing had been (SIGCONT)."""
    launcher = session.launcher()
    for name in session.partitions(where):
        launcher.resume(session.cluster, name)
        session.say(f"{name} goes on")


@click.command(cls=Command)
@_WHO
@pass_session
def reboot(session: CommandSession, where: tuple[str, ...]) -> None:
    """Shut partitions down in order, if they run, and boot them again; their faults are healed."""
    launcher = session.launcher()
    for name in session.partitions(where):
        launcher.reboot(session.cluster, name)
        session.say(f"{name} runs again")


@click.command(cls=Command)
@_WHO
@click.option("--reason", default="xpmem-emu panic", metavar="TEXT", help="What its log will say.")
@pass_session
def panic(session: CommandSession, where: tuple[str, ...], reason: str) -> None:
    """Let kernels panic: they tell their peers, answer every call and stop."""
    for name in session.partitions(where):
        try:
            with session.connect(name) as each:
                each.panic(reason)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EHOSTDOWN):
                raise
        session.say(f"{name} panicked; boot it with: xpmem-emu reboot {name}")


@click.command("raw-load", cls=Command)
@click.argument(
    "where", type=parameters.parse_partition, metavar="P", shell_complete=completion.several
)
@click.argument("home", type=parameters.partid, metavar="HOME", shell_complete=completion.several)
@click.argument("frame", type=parameters.parse_number, metavar="FRAME")
@pass_session
def raw_load(session: CommandSession, where: str, home: int, frame: int) -> None:
    """Let the kernel of P load a word of a frame of HOME: it panics if that fails."""
    with session.connect(where) as each:
        click.echo(f"{each.raw_load(home, frame):#x}")


# -- failpoints -------------------------------------------------------------------------------


@click.group(cls=Group)
def failpoint() -> None:
    """Named places in the kernel where something can be made to happen; see docs/faults.md."""


def _place(text: str) -> tuple[tuple[str, ...], str]:
    """Partitions and point of `p0-1:xpmem.fault.before_reply`."""
    where, colon, point = text.partition(":")
    if not colon:
        raise click.UsageError(f"{text!r} names no partition; write it like p1:{text}")
    return parameters.parse_partitions(where), point


@failpoint.command("set")
@click.argument("text", metavar="P,...:POINT=TERMS", shell_complete=completion.points)
@_SEED
@pass_session
def set_(session: CommandSession, text: str, seed: int | None) -> None:
    """Let a failpoint act, as in: p1:xpmem.fault.before_reply=2%3*return(ENOMEM)->pause."""
    place, equals, terms = text.partition("=")
    if not equals:
        raise click.UsageError(f"{text!r} says not what to do; write it like {text}=1*return")
    where, point = _place(place)
    chosen = faulting.drawn_seed() if seed is None else seed
    names = session.partitions(where)
    for name in names:
        with session.connect(name) as each:
            each.failpoint_set(point, terms, chosen)
    session.say(f"set {point} on {', '.join(names)} to {terms} (seed {chosen})")


@failpoint.command("ls")
@ON_SEVERAL
@click.option("--set", "only_set", is_flag=True, help="Only those that are set to something.")
@list_options
@pass_session
def ls_failpoints(
    session: CommandSession, where: tuple[str, ...] | None, only_set: bool, output: Listing
) -> None:
    """List the failpoints there are: what each is for, what it can return, what it is set to."""
    rows: list[OutputRow] = [
        {"partition": name, **row}
        for name, each in session.survey(session.partitions(where or ()))
        for row in each.failpoints()
        if row["terms"] or not only_set
    ]
    columns: tuple[str, ...] = ("partition", "point", "terms", "hits", "paused")
    if output.format is Format.TABLE and not only_set:
        rows, columns = faulting.one_per_point(rows), ("point", "context", "fails_with", "gist")
    session.show("failpoints", rows, output, columns, "no failpoints are set")


@failpoint.command("rm")
@click.argument("places", nargs=-1, metavar="P,...:POINT...", shell_complete=completion.points)
@click.option("--all", "everything", is_flag=True, help="Every failpoint of every partition.")
@pass_session
def rm_failpoint(session: CommandSession, places: tuple[str, ...], everything: bool) -> None:
    """Let failpoints do nothing, and let go whoever is paused there."""
    if bool(places) == everything:
        raise click.UsageError("Give failpoints like p1:mm.gup.pin, or --all.")
    for name in session.partitions() if everything else ():
        with session.connect(name) as each:
            each.failpoint_clear()
    for where, point in map(_place, places):
        for name in session.partitions(where):
            with session.connect(name) as each:
                each.failpoint_clear(point)
    session.say("cleared")


@failpoint.command("resume")
@click.argument("place", metavar="P,...:POINT", shell_complete=completion.points)
@pass_session
def resume_failpoint(session: CommandSession, place: str) -> None:
    """Let go the threads that are paused at a failpoint; prints how many."""
    where, point = _place(place)
    count = 0
    for name in session.partitions(where):
        with session.connect(name) as each:
            count += each.failpoint_resume(point)
    click.echo(count)
