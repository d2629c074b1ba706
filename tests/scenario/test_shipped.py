"""Every shipped scenario holds on both grounds, and would fail if the behaviour were wrong."""

from unittest.mock import patch

import pytest
from msgspec.structs import replace

from tests.live.conftest import Home
from tests.scenario.conftest import on_sim, silent
from xpmem_emu.backend.live_backend import LiveBackend
from xpmem_emu.backend.sim_backend import SimBackend
from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.kernel.interface import Failed, Outcome
from xpmem_emu.kernel.kernel import Kernel
from xpmem_emu.kernel.tasks import TaskTable
from xpmem_emu.scenario.story import Story, shipped_stories
from xpmem_emu.scenario.verdict import run_story
from xpmem_emu.sim.mutations.table import mutated
from xpmem_emu.xpmem import firewall

STORIES = {story.name: story for story in shipped_stories()}
every_story = pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))

CAUGHT = {
    "across-domains": "canary",
    "any-address": "zap_one_attachment",
    "atomic-context": "free_before_ack",
    "bad-weather": "no_dedup",
    "contained-copy": "hole_filled",
    "counters": "amo_twice",
    "dead-peer": "no_quarantine",
    "exporter-exits-first": "ack_before_zap",
    "finalize": "unpin_twice",
    "fork": "fork_without_recall",
    "inflight-race": "install_invalid",
    "kill": "stale_ids",
    "late-detach": "evict_overtakes_fault",
    "lossy-network": "deaf_faults",
    "network-cut": "lose_without_zap",
    "pages-unpinned": "release_keeps_holders",
    "pause": "no_migration",
    "private-is-private": "read_only_ignored",
    "read-only-source": "read_only_ignored",
    "reboot-in-the-middle": "accept_old_incarnation",
    "reclaim": "swap_loses",
    "restart": "stale_ids",
    "secondary-mmus": "flush_missed",
    "sharing": "release_keeps_holders",
    "stale-cache": "free_before_ack",
    "third-process": "canary",
    "thundering-herd": "forget_holder",
    "unreachable-peer": "canary",
}
"""A way to break the protocol, for each scenario that must see it broken."""

COMPLAINTS = (
    "killed processes that never die",
    "scheduling while atomic",
    "pages never unpinned",
    "SIGBUS when the exporter exits first",
    "crash in an attachment cache at finalize",
    "PTE not present or wrong PFN under reclaim",
    "hang on a read-only source page",
    "stale attachment cache",
    "wrong permissions",
    "an unreachable container peer",
    "-1 with no reason",
    "a third process touching the device file",
    "in-flight fault race",
    "a dead peer during an invalidate",
    "reboot in the middle",
    "thundering herd",
)


@every_story
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_scenario_holds_on_the_simulator(story: Story, seed: int) -> None:
    judgement = on_sim(story, seed).judgement
    assert judgement.findings == []
    assert judgement.verdict is Verdict.VALID


class SlowGround(SimBackend):
    """Every partition takes a hundred times as long for each thing that it does."""

    def up(self) -> None:
        super().up()
        for name in self.partitions:
            self.put_up(f"throttle {name} 20ms --name slow-{name}")


@every_story
def test_a_scenario_holds_on_a_machine_with_other_work_to_do(story: Story) -> None:
    judgement = run_story(story, SlowGround(story, 0), 0, silent).judgement
    assert judgement.findings == []


@pytest.mark.live
@pytest.mark.usefixtures("home")
@every_story
def test_a_scenario_holds_on_real_processes(story: Story, home: Home) -> None:
    judgement = run_story(story, LiveBackend(story, 0), 0, silent).judgement
    assert judgement.findings == []
    assert judgement.verdict is Verdict.VALID
    assert home.leftovers() == []


@pytest.mark.parametrize(("name", "mutant"), CAUGHT.items(), ids=list(CAUGHT))
def test_a_scenario_fails_when_the_protocol_is_broken(name: str, mutant: str) -> None:
    with mutated(mutant):
        judgement = on_sim(STORIES[name]).judgement
    assert judgement.verdict is Verdict.INVALID
    assert judgement.findings


def test_a_killed_process_that_does_not_die_is_seen() -> None:
    with patch.object(TaskTable, "end", lambda *_: None):
        judgement = on_sim(STORIES["killed-process"]).judgement
    assert "await touch within 5s => SIGKILL: " in judgement.findings[0]


def test_a_permission_that_is_not_judged_is_seen() -> None:
    with patch.object(firewall, "permitted", lambda *_, **__: True):
        judgement = on_sim(STORIES["wrong-permissions"]).judgement
    assert 'xpmem_get private => EACCES "0600": came ok' in judgement.findings[0]


def test_a_refusal_without_its_reason_is_seen() -> None:
    answer = Kernel._answer

    def mute(self: Kernel, call_id: int, outcome: Outcome) -> None:
        answer(
            self, call_id, replace(outcome, cause="") if isinstance(outcome, Failed) else outcome
        )

    with patch.object(Kernel, "_answer", mute):
        judgement = on_sim(STORIES["minus-one"]).judgement
    assert 'EINVAL "page": came EINVAL ()' in judgement.findings[0]


def test_every_complaint_has_a_scenario_that_names_it() -> None:
    shown = " ".join(story.shows for story in STORIES.values())
    assert [complaint for complaint in COMPLAINTS if complaint not in shown] == []
