"""Draws the pages again: `python -m xpmem_emu.docs.draw`, in the folder that README.md is in.

A test compares each page with what this makes of it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from xpmem_emu.docs.architecture import redraw
from xpmem_emu.docs.faults import fill_faults_page
from xpmem_emu.docs.judges import fill_judges_page
from xpmem_emu.docs.machines import machines_page

DRAWN: Mapping[str, Callable[[str], str]] = {
    "README.md": redraw,
    "docs/machines.md": lambda _text: machines_page(),
    "docs/faults.md": fill_faults_page,
    "docs/simulation.md": fill_judges_page,
}
"""Each page, and what makes of its text the text that it should have."""


def main() -> None:
    """Write every page anew."""
    for name, drawn in DRAWN.items():
        page = Path(name)
        page.write_text(drawn(page.read_text()))
        print(f"drew {name}")


if __name__ == "__main__":
    main()
