"""Every checker is proven: a protocol broken on purpose is caught, by what should catch it."""

import pytest

from xpmem_emu.judge.checkers import agreement
from xpmem_emu.kernel import boot
from xpmem_emu.kernel.audit import check_kernel
from xpmem_emu.kernel.handlers import memory as memory_calls
from xpmem_emu.mm import advise, areas, protect, remap, truncate
from xpmem_emu.mm.access import store
from xpmem_emu.mm.entries import zap
from xpmem_emu.shipped import find_toml
from xpmem_emu.sim.draw.swarm import Swarm, read_swarm
from xpmem_emu.sim.explore.worlds import WORLDS
from xpmem_emu.sim.mutation_score import hunt, shortest
from xpmem_emu.sim.mutations.patches import everywhere
from xpmem_emu.sim.mutations.table import MUTANTS, mutated

LIMIT = 20
QUICK = (
    "canary",
    "no_quarantine",
    "read_only_ignored",
    "release_keeps_holders",
    "remove_without_recall",
    "wrong_frame_served",
    "detach_takes_strangers",
    "heart_stands_still",
    "heartbeat_remembered",
    "sent_once",
    "table_remembers",
    "give_back_what_others_show",
    "store_leaves_clean",
    "hole_takes_copies",
    "private_store_reaches_file",
    "zap_without_recall",
    "grants_outlive",
    "flush_missed",
    "miss_does_not_wait",
    "retry_forgotten",
    "asid_reused",
    "ack_before_chain",
    "mspec_cached",
    "device_caches_mspec",
    "hole_filled",
    "bte_repeats_twice",
    "bte_writes_beyond",
)
"""Few seeds catch these; `make mutants` hunts all."""
DEVIATIONS = {
    "teardown_has_two_owners": 0,
    "boot_is_proof": 0,
    "poison_forgotten": 0,
    "interrupted_expels": 1,
    "old_work_applied": 1,
    "fence_not_waited_for": 1,
}
"""The gravest faults that there were, broken again, and where every schedule is run: the fewest
deviations that show each."""


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_mutant_is_caught(name: str) -> None:
    swarm = read_swarm(find_toml("scenarios", MUTANTS[name].swarm))
    kill = hunt(swarm, starts=1, limit=LIMIT, mutant=name)
    assert kill.killed, f"{name} survives {LIMIT} seeds"


def test_the_canary_fails_at_the_first_seed(swarm: Swarm) -> None:
    assert hunt(swarm, starts=2, limit=1, mutant="canary").seeds == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", DEVIATIONS)
def test_what_was_grave_is_caught_by_every_schedule_of_its_world(name: str) -> None:
    found = shortest(name, DEVIATIONS[name], worlds=(MUTANTS[name].world,))
    assert found is not None
    assert found.deviations == DEVIATIONS[name]


def test_mutants_name_worlds_and_swarms_that_exist() -> None:
    for mutant in MUTANTS.values():
        assert mutant.world in ("", *WORLDS)
        find_toml("scenarios", mutant.swarm)


def test_a_mutant_is_gone_when_its_block_ends() -> None:
    with mutated("canary"):
        assert vars(memory_calls)["store"] is not store
    assert vars(memory_calls)["store"] is store


def test_every_mutant_finds_what_it_breaks() -> None:
    """Its line may have been written anew since, or moved: then it would break nothing."""
    lost = {}
    for name in MUTANTS:
        try:
            with mutated(name):
                pass
        except (AttributeError, TypeError, ValueError) as error:
            lost[name] = str(error)
    assert lost == {}


def test_a_mutant_breaks_no_judge() -> None:
    with everywhere(check_kernel, str):
        assert vars(boot)["check_kernel"] is str
        assert vars(agreement)["check_kernel"] is check_kernel


def test_a_mutant_is_met_by_whoever_imported_what_it_breaks() -> None:
    with mutated("zap_without_recall"):
        assert all(module.zap is not zap for module in (advise, areas, remap, truncate))
    assert all(module.zap is zap for module in (advise, areas, remap, truncate))
    with mutated("protect_of_some"):
        assert vars(memory_calls)["mprotect"] is protect.mprotect
        assert vars(memory_calls)["mprotect"].__code__.co_filename.startswith("<slip")
