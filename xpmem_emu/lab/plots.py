"""Plots of an experiment: SVG by matplotlib, text by plotext. Both are the extra `lab`.

An SVG depends on the rows and the version of matplotlib alone: no date, no random names, text as
text.
"""

import errno
import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from xpmem_emu.errors import KernelError
from xpmem_emu.lab.experiment import Curves, LabRow
from xpmem_emu.lab.tables import column_title

_STYLE = {"svg.hashsalt": "xpmem-emu", "svg.fonttype": "none", "font.size": 9}
_DRAWS_SVG, _DRAWS_TEXT = "matplotlib.figure", "plotext"
_MARKS = "osD^vx*P"


def svg_plot(curves: Curves, rows: Sequence[LabRow]) -> str:
    """The plot as an SVG document. Raises KernelError where matplotlib is missing."""
    matplotlib: Any = _wanted("matplotlib")
    pyplot: Any = _wanted(_DRAWS_SVG)
    with matplotlib.rc_context(_STYLE):
        figure = pyplot.Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        if curves.of_words(rows):
            _draw_bars(axes, *curves.bars(rows))
        else:
            for mark, (name, (xs, ys)) in zip(_MARKS, curves.lines(rows).items(), strict=False):
                axes.plot(xs, ys, label=name, marker=mark, markersize=4)
        if curves.x in curves.logarithmic:
            axes.set_xscale("log")
        if curves.y in curves.logarithmic:
            axes.set_yscale("log")
        axes.set_xlabel(_axis(curves.x))
        axes.set_ylabel(_axis(curves.y))
        axes.grid(alpha=0.3)
        axes.legend(title=column_title(curves.series))
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def text_plot(curves: Curves, rows: Sequence[LabRow], width: int, height: int) -> str:
    """The plot for a terminal of that many columns. Raises KernelError where plotext is missing."""
    plotext: Any = _wanted(_DRAWS_TEXT)
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, height)
    if curves.of_words(rows):
        words, heights = curves.bars(rows)
        plotext.multiple_bar(words, list(heights.values()), labels=list(heights))
    else:
        for name, (xs, ys) in curves.lines(rows).items():
            plotext.plot(xs, ys, label=name)
        if curves.x in curves.logarithmic:
            plotext.xscale("log")
        if curves.y in curves.logarithmic:
            plotext.yscale("log")
    plotext.xlabel(_axis(curves.x))
    plotext.ylabel(_axis(curves.y))
    return str(plotext.uncolorize(plotext.build()))


def check_plots(*, svg: bool, terminal: bool) -> None:
    """Whether what is asked for could be drawn. Raises KernelError, before any work is done."""
    if svg:
        _wanted(_DRAWS_SVG)
    if terminal:
        _wanted(_DRAWS_TEXT)


def _draw_bars(axes: Any, words: list[str], heights: dict[str, list[int]]) -> None:
    width = 0.8 / len(heights)
    for series, (name, values) in enumerate(heights.items()):
        places = [each + (series - (len(heights) - 1) / 2) * width for each in range(len(words))]
        axes.bar(places, values, width, label=name)
    axes.set_xticks(range(len(words)), words)


def _axis(column: str) -> str:
    unit = " [ns]" if column.endswith("_ns") else ""
    return column_title(column) + unit


def _wanted(module: str) -> Any:
    """A module of the extra. It is asked for by name: the package must be whole without it."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise KernelError(
            errno.ENOENT,
            f"plots need {package}, which is not installed",
            f"{sys.executable} -m pip install 'matplotlib>=3.8,<4' 'plotext>=5.3,<6'",
        ) from None
