"""The engine: what is checked, what is waited for, what is said when it is not so."""

from unittest.mock import patch

import pytest

from tests.scenario.conftest import SHARED, Tell
from xpmem_emu.backend.interface import Unanswered
from xpmem_emu.backend.sim_backend import SimBackend
from xpmem_emu.judge.verdict import Verdict
from xpmem_emu.scenario import load
from xpmem_emu.sim.mutations.table import mutated

UNTRUE = {
    'importer load at 5 => "howdy"': "came b'hello'",
    "importer load at 5 => ENOENT": "came b'hello'",
    "importer load 0x1000 8": "came SIGSEGV at 0x1000: nothing is mapped",
    'importer load 0x1000 8 => SIGSEGV "elsewhere"': "came SIGSEGV",
    "importer xpmem_attach 77 0 4p": "came ENOENT (",
    'importer xpmem_attach 77 0 4p => ENOENT "moon"': "came ENOENT (",
    "importer load at 8 => zeros": "came b'hello",
    "importer load at 8 => word 7": "came b'hello",
    "exporter migrate memory 8p => 7": "came ok (0x1)",
    "check pins on p0 == 3": "pins on p0 is 0",
    "check event xpmem:pin on p0": "xpmem:pin on p0 is 0",
    "check p0 sees p1 not ACTIVE": "p0 sees p1 ACTIVE",
    "check gone importer": "importer exists",
    "check carrots on p0": "nothing counted is called carrots",
    "wait carrots on p0": "nothing counted is called carrots",
    "wait pins on p0 == 3 within 50ms": "not within 50ms, pins on p0 is 0",
    "wait event xpmem:pin on p0 within 1s": "not within 1s, xpmem:pin on p0 is 0",
    "heal nothing-there": "refused: no fault is named nothing-there",
    "segid load at 8": "segid is no task",
    "exporter mmap exporter": "exporter is a task, not a number",
    "x = exporter munmap memory 1p": "munmap gives nothing that could be x",
}

TRUE = {
    "alternatives": 'importer load at 5 => "howdy" or "hello"',
    "any end": "importer load 0x1000 5 => any",
    "repeated text": 'importer store at "ab"*3p\nexporter load memory 3p => "ab"*3p',
    "zeros": "importer load at+7p 8 => zeros",
    "a number": 'exporter store memory "x"*8p\nexporter migrate memory 8p => 8',
    "the device after close": "exporter xpmem_close\nexporter xpmem_make memory 8p",
    "the device of a child": "child = exporter fork\nchild xpmem_make memory 8p",
    "files": 'p0 creat notes 4096\np0 pwrite notes 0 "written"\np0 pread notes 0 7 => "written"',
    "lists and flags": "t = p1 spawn name=second uid=5 gids=1,2 handled=none cap_ipc_owner=no",
    "signals by name": "exporter kill SIGTERM\nwait gone exporter",
    "a poisoned frame": "importer load at 8\nframe = exporter pagetable memory\n"
    "fault poison p0 {frame}\nexporter load memory 8 => SIGBUS\nheal",
    "events by field": "importer load at 8\nwait event xpmem:fault_end on p1 outcome=installed "
    'pages=8 == 1\ncheck event xpmem:fault_end on p1 outcome="stall" == 1',
    "the setup does not count": "check event xpmem:make on p0 == 0",
    "a call that is lost": "late = begin importer load at 8\ncrash p1\nawait late => lost",
    "a panic that is asked for": "panic p1\nwait p0 sees p1 not ACTIVE\nboot p1\nwait all active",
}


@pytest.mark.parametrize(("line", "says"), UNTRUE.items(), ids=list(UNTRUE))
def test_a_step_that_is_not_as_told_makes_the_run_invalid(tell: Tell, line: str, says: str) -> None:
    ran = tell(setup=SHARED, load=line)
    assert ran.judgement.verdict is Verdict.INVALID
    assert f", load: {line}: " in ran.judgement.findings[0]
    assert says in ran.judgement.findings[0]


@pytest.mark.parametrize("told", TRUE.values(), ids=list(TRUE))
def test_a_story_that_is_so_is_valid(tell: Tell, told: str) -> None:
    assert tell(setup=SHARED, load=told).judgement.findings == []


def test_faults_go_on_beside_the_load_and_first(tell: Tell) -> None:
    ran = tell(
        setup=SHARED,
        faults="fault hold --match type=FAULT_REPLY --name slow\nwait held slow\n"
        "check waiting touch\nheal slow",
        load='touch = begin importer load at 5\nawait touch => "hello"',
    )
    assert ran.judgement.findings == []
    told = [line.step.text.split()[0] for line in ran.lines[-6:]]
    assert told == ["fault", "touch", "wait", "check", "heal", "await"]


def test_a_call_that_hangs_is_reported_and_not_waited_for_for_ever(tell: Tell) -> None:
    ran = tell(
        '[cluster]\npatience = "300ms"',
        setup=SHARED,
        load="fault hold --match type=FAULT_REPLY --name slow\nimporter load at 8",
    )
    (finding,) = ran.judgement.findings
    assert finding.endswith(", load: importer load at 8: not within 300ms, it hangs")


def test_a_begun_call_that_nobody_awaits_must_end_too(tell: Tell) -> None:
    with mutated("deaf_faults"):
        ran = tell(
            '[cluster]\npatience = "1s"',
            setup=SHARED,
            load="fault drop --match type=FAULT_REPLY --times 1 --name deaf\n"
            "lost = begin importer load at 8\nwait hits deaf",
        )
    assert "L3: lost did not end within 1s" in ran.judgement.findings[0]


def test_faults_that_the_story_leaves_are_healed_at_the_end(tell: Tell) -> None:
    ran = tell(setup=SHARED, load="hang p1\nfault link p0->p1 drop --name all")
    assert ran.judgement.findings == []


def test_the_checkers_look_at_every_run(tell: Tell) -> None:
    with mutated("free_before_ack"):
        ran = tell(setup=SHARED, load="importer load at 8\nexporter munmap memory 8p")
    assert any(finding.startswith(("S1", "S2", "S4")) for finding in ran.judgement.findings)


def test_a_leak_is_found_though_no_step_looks_for_it(tell: Tell) -> None:
    with mutated("release_keeps_holders"):
        ran = tell(setup=SHARED, load="importer load at 8\nimporter exit")
    assert ran.judgement.verdict is Verdict.INVALID
    assert any("without a permit" in finding for finding in ran.judgement.findings)


def test_a_partition_that_does_not_answer_makes_the_verdict_unknown(tell: Tell) -> None:
    silence = Unanswered("p0 does not answer")
    with patch.object(SimBackend, "ask", side_effect=silence):
        judgement = tell(setup=SHARED).judgement
    assert (judgement.verdict, judgement.findings) == (Verdict.UNKNOWN, ["p0 does not answer"])


def test_a_word_that_nobody_can_judge_makes_the_verdict_unknown(tell: Tell) -> None:
    with patch.object(load, "check_memory", lambda scene, history: 1):
        judgement = tell(load="random sharing 20").judgement
    assert judgement.verdict is Verdict.UNKNOWN


def test_a_run_says_the_same_again(tell: Tell) -> None:
    first, second = (tell(setup=SHARED, load="importer load at 8") for _ in range(2))
    assert [record.flat() for record in first.records] == [
        record.flat() for record in second.records
    ]
