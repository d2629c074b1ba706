"""What the commands of `lab` do."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from xpmem_emu.cli.failure import CommandFailed, ExitCode
from xpmem_emu.cli.interrupts import terminated_like_interrupted
from xpmem_emu.cli.output import Format, Listing, show_record, show_rows
from xpmem_emu.cli.progress import announce, tracked
from xpmem_emu.cli.verdicts import unwritten
from xpmem_emu.cluster.topology import load_image
from xpmem_emu.lab.experiment import Experiment, LabRow, Setting
from xpmem_emu.lab.plots import check_plots, svg_plot, text_plot
from xpmem_emu.lab.registry import all_experiments, find_experiment
from xpmem_emu.lab.report import renewed_page, report_section
from xpmem_emu.lab.running import measured_cases

_HEIGHT = 22


def list_all(output: Listing) -> None:
    rows = [
        {"number": each.place, "name": name, "question": each.question, "claim": each.claim}
        for name, each in all_experiments().items()
    ]
    click.echo(show_rows("experiments", rows, output, ("number", "name", "question")))


def run_one(
    name: str,
    seed: int,
    percent: int,
    image: str,
    jobs: int,
    plot: bool,
    svg: Path | None,
    output: Format,
) -> ExitCode:
    setting = Setting(seed, percent, load_image(image))
    experiment = find_experiment(name)
    curves = experiment.curves
    if curves is None and (plot or svg is not None):
        raise CommandFailed(f"{name} has a table and no plot", f"xpmem-emu lab run {name}")
    check_plots(svg=svg is not None, terminal=plot)
    rows = _measured(name, experiment, setting, jobs)
    _tell(name, experiment, setting, rows, output)
    if plot and curves is not None:
        click.echo(text_plot(curves, rows, _columns(), _HEIGHT))
    if svg is not None and curves is not None:
        _write(svg, svg_plot(curves, rows))
    return ExitCode.DONE


def write_report(
    seed: int, percent: int, image: str, jobs: int, only: Sequence[str], plots: bool, into: Path
) -> ExitCode:
    setting = Setting(seed, percent, load_image(image))
    known = all_experiments()
    wanted = {name: find_experiment(name) for name in only} or known
    check_plots(svg=plots, terminal=False)
    page = into / "lab.md"
    sections = {}
    for name, experiment in wanted.items():
        announce(f"{name}: {experiment.question}")
        rows = _measured(name, experiment, setting, jobs)
        sections[name] = report_section(name, experiment, rows)
        if plots and experiment.curves is not None:
            _write(into / "lab" / f"{name}.svg", svg_plot(experiment.curves, rows))
    before = page.read_text() if page.exists() else ""
    _write(page, renewed_page(before, list(known), sections))
    announce(f"wrote {page}")
    return ExitCode.DONE


def _measured(name: str, experiment: Experiment, setting: Setting, jobs: int) -> Sequence[LabRow]:
    total = len(experiment.cases(setting))
    with terminated_like_interrupted() as check:
        rows = []
        for row in tracked(measured_cases(name, setting, jobs), total, "cases"):
            rows.append(row)
            check()
    return experiment.combine(rows)


def _tell(
    name: str, experiment: Experiment, setting: Setting, rows: Sequence[LabRow], output: Format
) -> None:
    conclusion = experiment.conclude(rows)
    if not output.for_people:
        record = {
            "experiment": name,
            "question": experiment.question,
            "setup": experiment.setup,
            "claim": experiment.claim,
            "seed": setting.seed,
            "percent": setting.percent,
            "image": setting.image.name,
            "rows": rows,
            "word": conclusion.word.value,
            "conclusion": conclusion.text,
        }
        click.echo(show_record("experiment", record, output))
        return
    click.echo(f"{experiment.question}\n\n{experiment.setup}\n")
    click.echo(show_rows("experiment", rows, output))
    click.echo(f"\nclaim: {experiment.claim}")
    click.echo(f"{conclusion.word.value}: {conclusion.text}")


def _columns() -> int:
    named = os.environ.get("COLUMNS", "")
    return int(named) if named.isdecimal() else 80


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise unwritten(error, "the report", "--into DIR") from None
