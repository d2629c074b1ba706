"""Every swarm that ships: a few of its worlds are run with every change, 300 by `make swarms`."""

from pathlib import Path

import pytest

from xpmem_emu.errors import KernelError
from xpmem_emu.scenario.story import is_story
from xpmem_emu.shipped import find_toml, shipped_names
from xpmem_emu.sim.campaign import CampaignTally, results
from xpmem_emu.sim.draw.swarm import Sizes, Swarm, read_swarm
from xpmem_emu.sim.draw.world import draw_plan
from xpmem_emu.sim.run import run_plan
from xpmem_emu.sim.workloads import WORKLOADS

SWARMS = [name for name in shipped_names("scenarios") if not is_story(find_toml("scenarios", name))]
SEEDS = range(8)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [name for name in SWARMS if name != "chaos"])
def test_a_few_worlds_of_every_swarm_break_no_invariant(name: str) -> None:
    path = find_toml("scenarios", name)
    tally = CampaignTally(read_swarm(path))
    for result in results(path, SEEDS, jobs=1):
        tally.add(result)
    told = [f"seed {each.seed}: {each.violations[:1]}" for each in tally.failed]
    assert (told, tally.errors) == ([], [])


@pytest.mark.parametrize(
    ("program", "situation"),
    [
        ("crowd", "healed_when_full"),
        ("crossed", "fault_crossed_twice"),
        ("stranded", "fence_finished_before_return"),
        ("overdue", "bte_timed_out_then_session_lived"),
        ("mspec", "hole_of_mspec_refused"),
        ("mspec", "cached_alias_refused"),
        ("transfers", "bte_broke_off"),
    ],
)
def test_a_program_that_holds_something_reaches_what_it_is_for(
    program: str, situation: str
) -> None:
    swarm = Swarm(program, Sizes(threads=(24, 24)), workloads={program: 1})
    worlds = (run_plan(draw_plan(swarm, seed)) for seed in SEEDS)
    assert any(situation in world.reached for world in worlds)


def test_a_swarm_has_the_name_of_its_file_and_every_program_is_in_one() -> None:
    swarms = [read_swarm(find_toml("scenarios", name)) for name in SWARMS]
    assert [swarm.name for swarm in swarms] == SWARMS
    assert {name for swarm in swarms for name in swarm.workloads} == set(WORKLOADS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[swarm]\nname = "x"\nsituations = ["calm"]', "no situation 'calm'"),
        ('[swarm]\nname = "x"\n[swarm.workloads]\nidle = 1', "no workload 'idle'"),
    ],
)
def test_a_name_that_nobody_knows_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(KernelError, match=says):
        read_swarm(path)
