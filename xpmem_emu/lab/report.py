"""The page docs/lab.md: a section for each experiment, between marks, so that one can be renewed
without the others."""

from collections.abc import Sequence

from xpmem_emu.lab.experiment import Experiment, LabRow
from xpmem_emu.lab.tables import markdown_table

PAGE_HEAD = """\
# What was measured

`xpmem-emu lab report` runs all experiments of the [laboratory](laboratory.md) and writes this page;
the same seeds give the same tables, byte for byte. `xpmem-emu lab ls` lists them, `lab run` does
one.

Where costs are assumed they are those of the section `machine` of the image ([images](images.md)):
another image gives other figures. Times are virtual.
"""


def report_section(name: str, experiment: Experiment, rows: Sequence[LabRow]) -> str:
    """What the page says of one experiment, between its marks."""
    conclusion = experiment.conclude(rows)
    plot = f"![{name}](lab/{name}.svg)\n\n" if experiment.curves is not None else ""
    return (
        f"{_begin(name)}## {experiment.place}. {experiment.question}\n\n"
        f"{experiment.setup}\n\n"
        f"{markdown_table(rows)}\n"
        f"{plot}"
        f"*Claim:* {experiment.claim}\n\n"
        f"**{conclusion.word.value.capitalize()}.** {conclusion.text}\n\n"
        f"Again: `xpmem-emu lab run {name}`\n"
        f"{_end(name)}"
    )


def renewed_page(page: str, order: Sequence[str], sections: dict[str, str]) -> str:
    """The page with these sections in place of what it had of them, all in order, and none of an
    experiment that there is no more."""
    kept = {name: found for name in order if (found := section_of(page, name))}
    kept |= sections
    return "\n".join([PAGE_HEAD, *(kept[name] for name in order if name in kept)])


def section_of(page: str, name: str) -> str:
    """The section of an experiment, marks and all; empty when the page has none."""
    _, begin, rest = page.partition(_begin(name))
    inside, end, _ = rest.partition(_end(name))
    return f"{begin}{inside}{end}" if end else ""


def _begin(name: str) -> str:
    return f"<!-- {name}: begin -->\n"


def _end(name: str) -> str:
    return f"<!-- {name}: end -->\n"
