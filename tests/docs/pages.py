"""The commands that README and docs/ show, with the output that they show for them.

A command is a line with `$ ` in a block marked `console`, or a line of an indented block that
begins with the name of a program; there what follows two blanks is a remark. Commands inside of
sentences and tables stand between backticks.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"```(\w*)")
_INDENTED = re.compile(r" {4}((?:xpmem-emu|make|docker-compose|docker) .*)")
_REMARK = re.compile(r"\s{2,}#? ?.*| # .*")
_SPAN = re.compile(r"`([^`]+)`")
_CONTINUED = re.compile(r" {15,}[^ |]")
"""A line of output that is the rest of the one above: pages break lines that are long."""


@dataclass
class Shown:
    """A command as a page shows it, without remarks, and the lines of output below it."""

    page: str
    line: int
    command: str
    output: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Where it is."""
        return f"{self.page}:{self.line}: {self.command.splitlines()[0]}"


def commands(page: Path) -> list[Shown]:
    """The commands of the blocks of a page, in order; Python is a program for `python3 -`."""
    found: list[Shown] = []
    fence = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        at = page.name, number
        if match := _FENCE.match(line):
            fence = "" if fence else match[1] or "text"
            if fence == "python":
                found.append(Shown(*at, "python3 - <<'END'\n"))
            elif not fence and found and found[-1].command.startswith("python3 - "):
                found[-1].command = found[-1].command.removesuffix("END") + "END"
        elif fence == "python":
            found[-1].command += f"{line}\n"
        elif fence == "console" and line.startswith("$ "):
            found.append(Shown(*at, _REMARK.sub("", line[2:]).strip()))
        elif fence == "console" and _CONTINUED.match(line) and found[-1].output:
            found[-1].output[-1] += f" {line.strip()}"
        elif fence == "console":
            found[-1].output.append(line)
        elif not fence and (match := _INDENTED.match(line)):
            found.append(Shown(*at, _REMARK.sub("", match[1]).strip()))
    return found


def mentions(page: Path, names: Collection[str]) -> Iterator[Shown]:
    """Commands inside of sentences and tables; those of `xpmem-emu`, whose names are `names`, also
    without that word, if more follows."""
    fence = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence ^= line.startswith("```")
        for match in _SPAN.finditer("" if fence else line):
            text = match[1].replace("\\|", "|")
            first, blank, _ = text.partition(" ")
            if blank and first in names:
                text = f"xpmem-emu {text}"
            if text.startswith(("xpmem-emu ", "make ")):
                yield Shown(page.name, number, text)
