"""Every swarm that ships: a few of its worlds are run with every change, 300 by `make swarms`."""

from pathlib import Path

import pytest

from xpmem_emu.errors import KernelError
from xpmem_emu.scenario.story import is_story
from xpmem_emu.shipped import find_toml, shipped_names
from xpmem_emu.sim.campaign import Tally, results
from xpmem_emu.sim.swarm import read_swarm
from xpmem_emu.sim.workloads import WORKLOADS

SWARMS = [
    name for name in shipped_names("scenarios") if not is_story(find_toml("scenarios", name))
]
SEEDS = range(15)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [name for name in SWARMS if name != "chaos"])
def test_a_few_worlds_of_every_swarm_break_no_invariant(name: str) -> None:
    path = find_toml("scenarios", name)
    tally = Tally(read_swarm(path))
    for result in results(path, SEEDS, jobs=1):
        tally.add(result)
    told = [f"seed {each.seed}: {each.violations[:1]}" for each in tally.failed]
    assert (told, tally.errors) == ([], [])


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
