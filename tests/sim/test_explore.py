"""Exploring small worlds: nothing is found where nothing is broken, and what is broken is found."""

from collections.abc import Callable

import pytest

from xpmem_emu.kernel.interface import Done, Failed
from xpmem_emu.sim.explore.catalog import WORLD_NAMES
from xpmem_emu.sim.explore.choices import Deviation, Replay, format_line, parse_line
from xpmem_emu.sim.explore.explored import ExploredWorld
from xpmem_emu.sim.explore.schedule import Schedule
from xpmem_emu.sim.explore.search import Explored, explore, retell, run_once
from xpmem_emu.sim.explore.tree import Branch, States, run_tree
from xpmem_emu.sim.explore.world import Program, World, act, exporting, holding, importing
from xpmem_emu.sim.explore.worlds import WORLDS
from xpmem_emu.sim.plan import Op

SMALLEST = "boot-over"
"""The world with the fewest schedules."""


def explored(name: str, deviations: int, mutant: str = "", jobs: int = 1) -> Explored:
    *_, (whole, done, total) = explore(WORLDS[name], deviations, jobs, mutant)
    assert done == total
    return whole


def test_the_catalog_has_the_name_of_each_world() -> None:
    assert [(name, world.name) for name, world in WORLDS.items()] == [
        (name, name) for name in WORLD_NAMES
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_every_world_holds_with_one_deviation(name: str) -> None:
    whole = explored(name, 1)
    assert not whole.tally.errors, whole.tally.errors[0].text
    assert not whole.tally.found, whole.tally.found[0]
    assert whole.tally.schedules[1] >= 10


@pytest.mark.slow
def test_the_smallest_world_holds_with_two_deviations() -> None:
    whole = explored(SMALLEST, 2, jobs=2)
    assert not whole.tally.errors + whole.tally.found
    assert whole.complete
    assert whole.tally.schedules[2] > 100


def test_without_the_valid_check_the_race_is_found_with_one_deviation_and_only_then() -> None:
    whole = explored("inflight-race", 2, mutant="install_invalid")
    (first,) = whole.violations
    assert (first.invariant, first.deviations) == ("S4", 1)
    told = retell(WORLDS["inflight-race"], first.line, "install_invalid")
    assert told.invariants[0] == "S4"
    assert "FAULT_REPLY p0->p1" in told.deviations[0]
    assert not retell(WORLDS["inflight-race"], first.line).violations


@pytest.mark.parametrize(
    ("mutant", "world", "invariants"),
    [
        ("no_quarantine", "fence-wake", {"S7", "S2"}),
        ("free_before_ack", "two-recalls", {"S1", "S2"}),
        ("ack_before_zap", "inflight-race", {"S1", "S2", "S4"}),
        ("quarantine_without_proof", "boot-over", {"S7", "S2"}),
        ("reaped_with_answers_out", "kill-fault", {"S15"}),  # seen when all is quiet, and only then
    ],
)
def test_a_broken_protocol_is_found_in_the_world_that_is_about_it(
    mutant: str, world: str, invariants: set[str]
) -> None:
    whole = explored(world, 2, mutant)
    assert {found.invariant for found in whole.violations} & invariants


def test_a_schedule_done_again_is_the_same_event_for_event() -> None:
    world = WORLDS["inflight-race"]
    first, second = (retell(world, "6:first1,7:late") for _ in range(2))
    assert first == second
    assert not first.missed
    assert first.digest != retell(world, "6:first1").digest


class Noted(States):
    """States that are noted and never said to have been seen, or said as usual."""

    def __init__(self, visit: Callable[["Noted", int, int], bool]) -> None:
        super().__init__()
        self.all: set[int] = set()
        self._visit = visit

    def visit(self, fingerprint: int, left: int) -> bool:
        self.all.add(fingerprint)
        return self._visit(self, fingerprint, left)


TINY = World(
    name="tiny",
    gist="a load meets a munmap, and the importer may be stopped",
    setup=(*exporting(1), *importing(2, 1), *holding(2, 1, 1)),
    programs=(
        Program("importer", 1, (act(Op.LOAD, task=2, attachment=1),)),
        Program("exporter", 0, (act(Op.MUNMAP, task=1, region=1, pages=1),)),
    ),
    stops=(1,),
    kills=(1,),
)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "depth"), [(TINY, 2), (WORLDS["two-recalls"], 1)])
def test_what_is_cut_leads_to_nothing_new(world: World, depth: int) -> None:
    cutting = Noted(lambda self, fingerprint, left: States.visit(self, fingerprint, left))
    whole = Noted(lambda self, fingerprint, left: False)
    tallies = [
        run_tree(lambda chooser: run_once(world, chooser), Branch((), depth), states)
        for states in (cutting, whole)
    ]
    assert cutting.all == whole.all
    assert tallies[0].cut[depth] > 0
    assert tallies[0].events < tallies[1].events
    assert not tallies[1].cut[depth]


def outcomes(world: World, line: str) -> dict[str, object]:
    ground = ExploredWorld(world)
    schedule = Schedule(ground, Replay(parse_line(line)))
    schedule.run()
    ends: dict[str, object] = {
        text: type(ticket.outcome) for text, ticket in ground.tickets.items()
    }
    ground.close()
    return ends


def test_a_killed_task_is_told_so_and_the_world_goes_on() -> None:
    world = WORLDS["kill-recall"]
    usual = outcomes(world, "")
    assert set(usual.values()) == {Done}
    killed = outcomes(world, "2:kill1")
    assert killed["protect task 1 region 1 page 1 pages 1 detail read"] is Failed
    assert killed["load task 3 attachment 9"] is Done


def test_lines_are_read_as_they_are_written() -> None:
    deviations = [Deviation(14, "drop"), Deviation(22, "kill1")]
    assert parse_line(format_line(deviations)) == deviations
    assert parse_line("") == []
    with pytest.raises(ValueError, match="'14' is not POINT:CHOICE"):
        parse_line("14,22:kill1")
