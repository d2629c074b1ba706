"""`lab`: the experiments of the laboratory.

What the commands do is in `experimenting`, imported when one is run: help and completion do not
wait for the simulator.
"""

from pathlib import Path

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cli.arguments import JOBS, shipped_option
from xpmem_emu.cli.commands import Command, Sections
from xpmem_emu.cli.failure import ExitCode
from xpmem_emu.cli.output import Format, Listing, list_options, output_option
from xpmem_emu.cli.session import CommandSession


def _names(_session: CommandSession, _context: click.Context, _begun: str) -> list[str]:
    from xpmem_emu.lab.registry import experiment_names

    return list(experiment_names())


_complete_names = completion.completer(_names)
_seed = click.option(
    "--seed",
    type=parameters.parse_number,
    default="0",
    show_default=True,
    metavar="N",
    help="What chance begins with.",
)
_percent = click.option(
    "--size",
    "percent",
    type=click.IntRange(1, 100),
    default=100,
    show_default=True,
    metavar="PERCENT",
    help="How large: fewer seeds, fewer areas, smaller tables.",
)
_image = shipped_option(
    "image", "Whose costs and limits: a shipped image, or a .toml file.", default="laptop"
)


@click.group(cls=Sections)
def lab() -> None:
    """Run the designs of 2008 side by side, and measure them."""


lab.add_section(
    "Commands",
    {
        "ls": ("laboratory.list_experiments", "List the experiments, and what each asks"),
        "run": ("laboratory.run", "Run one experiment"),
        "report": ("laboratory.report", "Run all experiments and write the page docs/lab.md"),
    },
)


@click.command("ls", cls=Command)
@list_options
def list_experiments(output: Listing) -> None:
    """List the experiments, and what each asks."""
    from xpmem_emu.cli import experimenting

    experimenting.list_all(output)


@click.command(cls=Command)
@click.argument("name", shell_complete=_complete_names)
@_seed
@_percent
@_image
@JOBS
@click.option("--plot", is_flag=True, help="Draw its plot on the terminal; needs plotext.")
@click.option(
    "--svg",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw its plot into a file; needs matplotlib.",
)
@output_option
def run(
    name: str,
    seed: int,
    percent: int,
    image: str,
    jobs: int,
    plot: bool,
    svg: Path | None,
    output: Format,
) -> ExitCode:
    """Run one experiment: its table, and what it says to the claim that it is about."""
    from xpmem_emu.cli import experimenting

    return experimenting.run_one(name, seed, percent, image, jobs, plot, svg, output)


@click.command(cls=Command)
@_seed
@_percent
@_image
@JOBS
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    shell_complete=_complete_names,
    help="Renew only this section of the page; may be repeated.",
)
@click.option("--no-plots", is_flag=True, help="Leave the plots as they are.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs"),
    show_default=True,
    metavar="DIR",
    help="The folder of the page; plots go to its folder lab.",
)
def report(
    seed: int,
    percent: int,
    image: str,
    jobs: int,
    only: tuple[str, ...],
    no_plots: bool,
    into: Path,
) -> ExitCode:
    """Run all experiments and write the page docs/lab.md; each has a table, most have a plot.

    The same seed, size and image give the same page, byte for byte.
    """
    from xpmem_emu.cli import experimenting

    return experimenting.write_report(seed, percent, image, jobs, only, not no_plots, into)
