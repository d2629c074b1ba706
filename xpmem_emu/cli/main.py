"""The `xpmem-emu` command: its groups, its exit codes, nothing else."""

import os
import sys
from collections.abc import Sequence

import click

from xpmem_emu import __version__
from xpmem_emu.cli.commands import Root
from xpmem_emu.cli.completion import COMPLETION_VARIABLE, PROGRAM
from xpmem_emu.cli.failure import ExitCode, guard
from xpmem_emu.cli.session import CommandSession

_COMMANDS = {
    "Cluster": {
        "up": ("cluster.up", "Start a cluster"),
        "down": ("cluster.down", "End a cluster"),
        "clean": (
            "cluster.clean",
            "Remove what the partitions of a cluster left on this host, once none of them lives "
            "here",
        ),
        "ps": ("cluster.ps", "List the processes of a cluster, or all clusters"),
        "status": ("cluster.status", "Tell how each partition is and whom it knows"),
        "logs": ("logs.logs", "Print the logs of all partitions, or of some, by time"),
        "boot": ("cluster.boot", "Be one partition, in the foreground"),
        "doctor": (
            "doctor.doctor",
            "Check this machine and the cluster, with a remedy for what is wrong",
        ),
    },
    "Share": {
        "export": ("share.export", "Share a file's bytes, fresh memory, or memory that a task has"),
        "attach": ("share.attach", "Map a segment into a task of another partition"),
        "detach": ("share.detach", "Unmap an attachment"),
        "release": ("share.release", "Give up a permit, and with it all its attachments"),
        "remove": ("share.remove", "Take a segment back"),
    },
    "Read and write": {
        "cat": ("data.cat", "Write the bytes of an attachment or a segment to stdout"),
        "cp": ("data.cp", "Copy between memory and a file here, either way"),
        "load": ("data.load", "Read SIZE bytes and print them"),
        "store": ("data.store", "Write bytes"),
        "amo": ("data.amo", "Atomic operation on an uncached 64-bit word"),
        "bte": (
            "data.bte",
            "Have the block transfer engine copy SIZE bytes, as a task that has both may",
        ),
    },
    "Tasks and their memory": {
        "task": ("tasks.task", "Processes of the emulated partitions, and their memory calls"),
        "vm": ("tasks.vm", "What a partition's kernel does by itself, and its files"),
        "device": ("devices.device", "Devices that translate a task's addresses by themselves"),
    },
    "Break": {
        "fault": (
            "breaking.fault",
            "Faults of messages, links, membership, clocks, pace and memory",
        ),
        "partition": (
            "breaking.partition",
            "Cut the cluster into sides that do not reach each other, as in",
        ),
        "heal": ("breaking.heal", "Undo every `partition`"),
        "hold": ("breaking.hold", "Hold messages back until `release-held`, as in"),
        "release-held": (
            "breaking.release_held",
            "Let held messages go, of the named faults or of every hold, and end holding",
        ),
        "crash": ("breaking.crash", "Kill partitions without a word (SIGKILL)"),
        "hang": ("breaking.hang", "Stop partitions where they are (SIGSTOP), maybe inside a store"),
        "resume": (
            "breaking.resume",
            "Let stopped partitions go on as if nothing had been (SIGCONT)",
        ),
        "reboot": (
            "breaking.reboot",
            "Shut partitions down in order, if they run, and boot them again",
        ),
        "panic": ("breaking.panic", "Let kernels panic"),
        "raw-load": ("breaking.raw_load", "Let the kernel of P load a word of a frame of HOME"),
        "failpoint": (
            "breaking.failpoint",
            "Named places in the kernel where something can be made to happen",
        ),
    },
    "Look": {
        "get": ("look.get", "List objects of all partitions"),
        "describe": (
            "look.describe",
            "Tell all that is known of one object, its last failure included",
        ),
        "pagetable": ("look.pagetable", "Walk a task's page table for one address, level by level"),
        "events": ("events.events", "Show the event streams of the partitions as one"),
        "top": ("top.top", "Show how busy the partitions are, again and again until Ctrl-C"),
    },
    "Keys": {"keys": ("keys.keys", "Keys that guard tcp endpoints")},
    "Run and simulate": {
        "run": ("running.run", "Run a scenario"),
        "sim": ("simulate.sim", "Simulate seeded worlds full of faults, and judge every invariant"),
        "lab": ("laboratory.lab", "Run the designs of 2008 side by side, and measure them"),
        "judge": (
            "judging.judge_streams",
            "Judge the event streams that partitions wrote to files",
        ),
    },
    "Learn": {
        "demo": ("demo.demo", "Watch memory being shared, recalled and survived"),
        "completion": ("completion.completion", "Print the completion script"),
    },
}
"""By section of the help: where each command is, and the first clause of its own help. Modules are
imported when their command is used: help and completion import none."""


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Emulate memory shared across partitions: XPMEM over XPC, rootless, with every reason told.

    Start with `xpmem-emu demo`, or with `xpmem-emu up`.
    """


for _section, _commands in _COMMANDS.items():
    cli.add_section(_section, _commands)


def _invoke(arguments: Sequence[str], session: CommandSession) -> object:
    if COMPLETION_VARIABLE in os.environ:
        return cli.main(list(arguments), prog_name=PROGRAM, obj=session)
    # Not `cli.main`: it answers a closed pipe and Ctrl-C in its own way.
    with cli.make_context(PROGRAM, list(arguments), obj=session) as context:
        return cli.invoke(context)


def run_command(arguments: Sequence[str], session: CommandSession) -> int:
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
    return run_command(sys.argv[1:], CommandSession())


if __name__ == "__main__":
    sys.exit(main())
