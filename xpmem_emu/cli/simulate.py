"""`sim`: seeded runs on virtual time, their verdicts, and what to do with one that fails.

Exit codes are those of verdicts: 0 valid, 1 invalid, 2 unknown, 3 when the simulator itself or the
writing of a bundle failed. A seed that fails prints the one command that does it again. What the
commands do is in `simulating`, `exploring` and `killing`, each imported when it is run: help and
completion do not wait for the simulator.
"""

from collections.abc import Iterable
from pathlib import Path

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.arguments import JOBS, RUNS
from xpmem_emu.cli.commands import Command, Sections
from xpmem_emu.cli.failure import ExitCode
from xpmem_emu.cli.output import Format, output_option
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.sim.explore.catalog import DEPTH_MAX, WORLD_NAMES


@parameters.parameter
def _mutant_name(text: str) -> str:
    """The name of a mutant, or none."""
    if text:
        from xpmem_emu.sim.mutations.table import MUTANTS

        if text not in MUTANTS:
            raise ValueError(f"{text!r} is not one of {', '.join(MUTANTS)}")
    return text


def _mutants(_session: CommandSession, _context: click.Context, _begun: str) -> Iterable[str]:
    from xpmem_emu.sim.mutations.table import MUTANTS

    return MUTANTS


_scenario = click.argument("scenario", shell_complete=completion.swarms)
_seed = click.option("--seed", type=parameters.parse_number, metavar="N", help="One seed.")
_mutant = click.option(
    "--mutant",
    default="",
    metavar="MUTANT",
    type=_mutant_name,
    shell_complete=completion.completer(_mutants),
    help="Break the protocol on purpose, to see it caught.",
)
_audits = click.option(
    "--audits", is_flag=True, help="Let kernels compare all their counts after each step; slow."
)


@click.group(cls=Sections)
def sim() -> None:
    """Simulate seeded worlds full of faults, and judge every invariant."""


sim.add_section(
    "Commands",
    {
        "run": (
            "simulate.run",
            "Run one seed, which leaves a result bundle, or a campaign of many",
        ),
        "replay": ("simulate.replay", "Do a run again"),
        "shrink": (
            "simulate.shrink",
            "Delete from a failing plan all that the failure does not need",
        ),
        "gate": ("simulate.gate", "Check determinism"),
        "explore": (
            "simulate.explore",
            "Run every schedule of a small world that deviates from the default order at most K "
            "times",
        ),
        "mutants": ("simulate.mutants", "Break the protocol in every known way"),
    },
)


@click.command(cls=Command)
@_scenario
@_seed
@click.option("--seeds", metavar="A..B", help="Many seeds, both ends included.")
@JOBS
@_mutant
@RUNS
@_audits
@output_option
def run(
    scenario: str,
    seed: int | None,
    seeds: str | None,
    jobs: int,
    mutant: str,
    runs: Path,
    audits: bool,
    output: Format,
) -> ExitCode:
    """Run one seed, which leaves a result bundle, or a campaign of many.

    A campaign that is interrupted tells what it found until then; seeds that fail leave bundles.
    """
    from xpmem_emu.cli import simulating

    return simulating.run(scenario, seed, seeds, jobs, mutant, runs, audits, output)


@click.command(cls=Command)
@_scenario
@_seed
@_mutant
@RUNS
@output_option
def replay(scenario: str, seed: int | None, mutant: str, runs: Path, output: Format) -> ExitCode:
    """Do a run again: a scenario with a seed, or the plan.json of a bundle."""
    from xpmem_emu.cli import simulating

    return simulating.replay(scenario, seed, mutant, runs, output)


@click.command(cls=Command)
@_scenario
@_seed
@_mutant
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/shrunk.json"),
    show_default=True,
    help="Where the small plan goes.",
)
@output_option
def shrink(scenario: str, seed: int | None, mutant: str, out: Path, output: Format) -> ExitCode:
    """Delete from a failing plan all that the failure does not need."""
    from xpmem_emu.cli import simulating

    return simulating.shrink_seed(scenario, seed, mutant, out, output)


@click.command(cls=Command)
@_scenario
@click.option("--seeds", metavar="A..B", default="0..49", show_default=True, help="Which seeds.")
@output_option
def gate(scenario: str, seeds: str, output: Format) -> ExitCode:
    """Check determinism: each seed twice, in fresh processes with different hash seeds."""
    from xpmem_emu.cli import simulating

    return simulating.gate(scenario, seeds, output)


@click.command(cls=Command)
@click.argument("story", type=click.Choice([*WORLD_NAMES, "all"]), metavar="STORY")
@click.option(
    "--deviations",
    type=click.IntRange(0, DEPTH_MAX),
    default=2,
    show_default=True,
    help="At most so many in one schedule.",
)
@JOBS
@_mutant
@click.option("--replay", metavar="LINE", help="Only the schedule of this line, told in full.")
@click.option(
    "--limit",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Stop a world after this time; its verdict is unknown then.",
)
@output_option
def explore(
    story: str,
    deviations: int,
    jobs: int,
    mutant: str,
    replay: str | None,
    limit: float | None,
    output: Format,
) -> ExitCode:
    """Run every schedule of a small world that deviates from the default order at most K times.

    STORY is a world, or `all` of them. A deviation is another thread or message first, a message
    lost, doubled or late, a process stopped or crashed, a task killed, a thread that stays where
    it is. It goes deeper until something is found.
    """
    from xpmem_emu.cli import exploring

    return exploring.explore_worlds(story, deviations, jobs, mutant, replay, limit, output)


@click.command(cls=Command)
@click.argument("scenario", default="", shell_complete=completion.swarms)
@click.option(
    "--starts",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="How many times each mutant is hunted.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    help="Seeds in which a mutant must be caught.",
)
@click.option(
    "--explore",
    "deviations",
    type=click.IntRange(-1, 2),
    default=2,
    show_default=True,
    metavar="K",
    help="Explore the small worlds up to so many deviations; -1: do not.",
)
@JOBS
@click.option(
    "--only",
    multiple=True,
    metavar="MUTANT",
    type=_mutant_name,
    shell_complete=completion.completer(_mutants),
    help="Only this mutant.",
)
@output_option
def mutants(
    scenario: str,
    starts: int,
    limit: int,
    deviations: int,
    jobs: int,
    only: tuple[str, ...],
    output: Format,
) -> ExitCode:
    """Break the protocol in every known way; each mutant must be caught.

    SCENARIO is the swarm of worlds; without one each mutant is hunted in the one that it names.
    """
    from xpmem_emu.cli import killing

    return killing.kill_mutants(scenario, starts, limit, deviations, jobs, only, output)
