"""The invariants and their judges in docs/simulation.md, made from what both say of themselves."""

from xpmem_emu.docs.markdown import refill, table
from xpmem_emu.judge.checkers import judges
from xpmem_emu.judge.invariants import Invariant, When


def fill_judges_page(page: str) -> str:
    """`page` with both lists as they should be."""
    return refill(page, {"invariants": _invariants(), "judges": _judges()})


def _invariants() -> str:
    rows = []
    for each in Invariant:
        by = ", ".join(judge.name for judge in judges() if each in judge.invariants)
        rows.append((each, each.label, each.meaning, by, _streams(each)))
    return table(("", "invariant", "means", "judged by", "in event streams alone"), rows)


def _streams(each: Invariant) -> str:
    match each.streams.when:
        case When.ALWAYS:
            return each.streams.what
        case When.AT_REST:
            return f"`--at-rest`: {each.streams.what}"
        case When.NEVER:
            return f"not judged: {each.streams.what}"


def _judges() -> str:
    rows = [(each.name, ", ".join(each.invariants), each.looks_at) for each in judges()]
    return table(("judge", "judges", "looks at"), rows)
