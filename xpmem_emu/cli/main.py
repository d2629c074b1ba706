"""The `xpmem-emu` command: its groups, its exit codes, nothing else."""

import os
import sys
from collections.abc import Sequence

import click

from xpmem_emu import __version__
from xpmem_emu.cli import (
    breaking,
    cluster,
    completion,
    data,
    demo,
    doctor,
    events,
    judging,
    keys,
    logs,
    look,
    running,
    share,
    simulate,
    tasks,
    top,
)
from xpmem_emu.cli.commands import Root
from xpmem_emu.cli.completion import COMPLETION_VARIABLE, PROGRAM
from xpmem_emu.cli.failure import ExitCode, guard
from xpmem_emu.cli.session import Session


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Emulate memory shared across partitions: XPMEM over XPC, rootless, with every reason told.

    Start with `xpmem-emu demo`, or with `xpmem-emu up`.
    """


cli.add_section(
    "Cluster",
    [cluster.up, cluster.down, cluster.clean, cluster.ps, cluster.status, logs.logs,
     cluster.boot, doctor.doctor],
)  # fmt: skip
cli.add_section("Share", [share.export, share.attach, share.detach, share.release, share.remove])
cli.add_section("Read and write", [data.cat, data.cp, data.load, data.store, data.amo])
cli.add_section("Tasks and their memory", [tasks.task, tasks.vm])
cli.add_section(
    "Break",
    [breaking.fault, breaking.partition, breaking.heal, breaking.hold, breaking.release_held,
     breaking.crash, breaking.hang, breaking.resume, breaking.reboot, breaking.panic,
     breaking.failpoint],
)  # fmt: skip
cli.add_section("Look", [look.get, look.describe, look.pagetable, events.events, top.top])
cli.add_section("Keys", [keys.keys])
cli.add_section("Run and simulate", [running.run, simulate.sim, judging.judge_streams])
cli.add_section("Learn", [demo.demo, completion.completion])


def _invoke(arguments: Sequence[str], session: Session) -> object:
    if COMPLETION_VARIABLE in os.environ:
        return cli.main(list(arguments), prog_name=PROGRAM, obj=session)
    # Not `cli.main`: it answers a closed pipe and Ctrl-C in its own way.
    with cli.make_context(PROGRAM, list(arguments), obj=session) as context:
        return cli.invoke(context)


def run(arguments: Sequence[str], session: Session) -> int:
    """Runs one command line; the exit code is what `failure` lists."""
    code = guard(
        lambda: _invoke(arguments, session),
        lambda: session.command or PROGRAM,
        lambda: session.debug,
        session.said,
        session.typeable,
    )
    return ExitCode.UNKNOWN if session.unanswered and code == ExitCode.DONE else code


def main() -> int:
    """Entry point of the installed command."""
    return run(sys.argv[1:], Session())


if __name__ == "__main__":
    sys.exit(main())
