"""Commands that judge: the verdict first, whatever becomes of the bundle or of the rest of the run;
one document for programs; the line that does a failure again."""

import errno
import json
import multiprocessing as mp
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import cast

import pytest
from rich.progress import Task

from tests.scenario.conftest import SHARED, written
from xpmem_emu.cli import campaigning, killing, lines, simulating
from xpmem_emu.cli.main import run_command
from xpmem_emu.cli.progress import Speed, tracked
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.judge.bundle import new_bundle
from xpmem_emu.scenario import bundle
from xpmem_emu.sim import determinism
from xpmem_emu.sim.campaign import HarnessError, results
from xpmem_emu.sim.mutation_score import MutationScore
from xpmem_emu.sim.workers import workers

Typed = Callable[..., tuple[int, str, str]]
BROKEN = ["--mutant", "canary"]


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """Runs a command line in a folder of its own; its code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run_line(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(arguments, CommandSession())
        return code, *capsys.readouterr()

    return run_line


def full(*_: object) -> Path:
    raise OSError(errno.ENOSPC, "No space left on device", "runs/x/events.jsonl")


@pytest.fixture
def story(tmp_path: Path) -> str:
    """A scenario that fails."""
    return str(written(tmp_path, setup=SHARED, load='importer load at 5 => "howdy"'))


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A swarm of worlds that take no time, in which the canary is caught."""
    path = tmp_path / "tiny.toml"
    path.write_text("""
        [swarm]
        name = "tiny"
        sizes = {partitions = [2, 2], operations = [10, 20]}
        times = {load = ["20ms", "30ms"]}
        workloads = {sharing = 1}
        [swarm.faults]
        rules = [0, 0]
        splits = [0, 0]
        crashes = [0, 0]
        hangs = [0, 0]
        clocks = [0, 0]
        strains = [0, 0]
        failpoints = 0.0
        poisons = 0.0
    """)
    return str(path)


# -- bundles ----------------------------------------------------------------------------------


def test_a_bundle_that_cannot_be_written_costs_no_verdict(
    typed: Typed, story: str, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "write_story_bundle", full)
    monkeypatch.setattr(simulating, "write_run_bundle", full)
    for command, verdict in (
        (["run", "sharing"], "valid"),
        (["run", story], "invalid"),
        (["sim", "run", tiny, "--seed", "0"], "valid"),
        (["sim", "replay", tiny, "--seed", "0", *BROKEN], "invalid"),
    ):
        code, out, err = typed(*command)
        assert (code, out.splitlines()[-1]) == (3, f"verdict: {verdict}")
        assert err.splitlines()[-1].startswith("error: ")
        assert "(ENOSPC): the bundle could not be written: runs/x/events.jsonl: No sp" in err
        code, out, _ = typed(*command, "-o", "json")
        told = json.loads(out)
        assert (code, told["verdict"], told["bundle"]) == (3, verdict, None)


def test_a_folder_that_is_none_is_a_harness_error(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, out, err = typed("run", "sharing", "--runs", "file")
    assert (code, out) == (3, "verdict: valid\n")
    assert "(ENOTDIR): the bundle could not be written: file/sharing" in err
    assert "; try: --runs DIR" in err


def test_ctrl_c_while_the_bundle_is_written_keeps_no_verdict_back(
    typed: Typed, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "write_story_bundle", interrupt)
    code, out, _ = typed("run", story)
    assert (code, out.splitlines()[-1]) == (130, "verdict: invalid")


def test_half_a_bundle_is_removed_and_latest_stays_what_it_was(tmp_path: Path) -> None:
    with new_bundle(tmp_path, "story") as first:
        (first / "file").touch()
    with suppress(OSError), new_bundle(tmp_path, "story") as second:
        (second / "file").touch()
        raise OSError("full")
    assert not second.exists()
    assert (tmp_path / "story" / "latest").resolve() == first


def test_latest_is_that_of_the_scenario_and_that_of_all(tmp_path: Path) -> None:
    folders = {}
    for name in ("one", "two", "latest"):
        with new_bundle(tmp_path, name) as folders[name]:
            pass
    assert (tmp_path / "one" / "latest").resolve() == folders["one"]
    assert (tmp_path / "latest" / "latest").resolve() == folders["latest"]
    with new_bundle(tmp_path / "other", "one") as folder:
        pass
    assert (tmp_path / "other" / "latest").resolve() == folder


# -- documents and replays --------------------------------------------------------------------


def test_a_failing_run_prints_the_line_that_does_it_again(typed: Typed, story: str) -> None:
    code, out, _ = typed("run", story, "--seed", "7")
    (line,) = [line for line in out.splitlines() if line.startswith("replay: ")]
    assert code == 1
    again = shlex.split(line.removeprefix("replay: "))
    assert again == ["xpmem-emu", "run", story, "--on", "sim", "--seed", "7"]
    code, out, _ = typed(*again[1:], "-o", "json")
    told = json.loads(out)
    assert (code, told["schema"], told["verdict"]) == (1, "xpmem-emu/run/v1", "invalid")
    assert "came b'hello'" in told["findings"][0]
    assert Path(told["bundle"]).is_dir()
    assert shlex.split(told["replay"]) == again


def test_a_valid_run_is_one_line_of_jsonl(typed: Typed) -> None:
    code, out, _ = typed("run", "sharing", "-o", "jsonl")
    assert code == 0
    assert json.loads(out)["findings"] == []
    assert "replay" not in typed("run", "sharing")[1]


def test_one_seed_and_a_campaign_are_documents(typed: Typed, tiny: str) -> None:
    code, out, _ = typed("sim", "run", tiny, "--seed", "0", *BROKEN, "-o", "json")
    one = json.loads(out)
    assert (code, one["schema"], one["verdict"]) == (1, "xpmem-emu/sim-run/v1", "invalid")
    code, out, _ = typed("sim", "run", tiny, "--seeds", "0..1", *BROKEN, "-o", "json")
    many = json.loads(out)
    assert (code, many["schema"], many["run"]) == (1, "xpmem-emu/campaign/v1", 2)
    failed = many["failed"][0]
    assert failed["first"] == one["violations"][0]
    assert shlex.split(failed["replay"])[:5] == ["xpmem-emu", "sim", "replay", tiny, "--seed"]
    assert (Path(failed["bundle"]) / "plan.json").exists()
    again = shlex.split((Path(failed["bundle"]) / "replay").read_text())
    assert typed(*again[1:])[0] == 1


def test_shrinking_and_the_gate_are_documents(
    typed: Typed, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulating, "shrink_plan", lambda plan: plan)
    code, out, _ = typed("sim", "shrink", tiny, "--seed", "0", *BROKEN, "-o", "json")
    told = json.loads(out)
    assert (code, told["schema"], told["before"]) == (0, "xpmem-emu/shrunk/v1", told["after"])
    assert told["plan"] == "runs/shrunk.json"
    assert typed(*shlex.split(told["replay"])[1:])[0] == 1
    monkeypatch.setattr(campaigning, "compared", lambda *_: iter([(0, True), (1, False)]))
    code, out, _ = typed("sim", "gate", tiny, "--seeds", "0..1", "-o", "json")
    assert (code, json.loads(out)["different"]) == (1, [1])


def test_a_small_plan_that_cannot_be_written_costs_no_verdict(
    typed: Typed, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulating, "shrink_plan", lambda plan: plan)
    code, out, err = typed("sim", "shrink", tiny, "--seed", "0", *BROKEN, "--out", "/dev/full")
    assert code == 3
    assert out.startswith("faults: ")
    assert f"replay: xpmem-emu sim replay {tiny} --seed 0" in out
    assert "the plan could not be written: " in err
    assert "try: --out FILE, a folder of yours with room" in err


@pytest.mark.parametrize(
    "command",
    [
        ["run", "nosuch"],
        ["sim", "run", "nosuch", "--seed", "1"],
        ["sim", "run", "nosuch", "--seeds", "0..1"],
        ["sim", "replay", "nosuch", "--seed", "1"],
        ["sim", "shrink", "nosuch", "--seed", "1"],
        ["sim", "gate", "nosuch"],
        ["sim", "mutants", "nosuch"],
    ],
)
def test_a_scenario_that_is_not_there_is_a_usage_error_everywhere(
    typed: Typed, command: list[str]
) -> None:
    code, _, err = typed(*command)
    assert code == 64
    assert "there is no 'nosuch' in scenarios; try: one of across-domains" in err


def test_a_mutant_that_is_not_there_is_a_usage_error(typed: Typed, tiny: str) -> None:
    code, _, err = typed("sim", "run", tiny, "--seed", "1", "--mutant", "nosuch")
    assert code == 64
    assert "'nosuch' is not one of canary, " in err


# -- interrupted ------------------------------------------------------------------------------


def broken_off(items: Iterator[object]) -> Iterator[object]:
    """These, then Ctrl-C."""
    yield from items
    raise KeyboardInterrupt


@pytest.mark.parametrize(("mutant", "code"), [([], 130), (BROKEN, 1)])
def test_a_campaign_tells_what_it_found_until_ctrl_c(
    typed: Typed, tiny: str, monkeypatch: pytest.MonkeyPatch, mutant: list[str], code: int
) -> None:
    monkeypatch.setattr(
        campaigning,
        "results",
        lambda path, seeds, *rest: broken_off(results(path, seeds[:2], *rest)),
    )
    command = ["sim", "run", tiny, "--seeds", "0..9", *mutant]
    ended, out, _ = typed(*command)
    assert ended == code
    assert "interrupted after 2 of 10 seeds" in out
    assert out.splitlines()[-1] == f"verdict: {'invalid' if mutant else 'unknown'}"
    assert out.count("    bundle: ") == out.count("    replay: ")
    told = json.loads(typed(*command, "-o", "json")[1])
    assert (told["run"], told["seeds"], told["interrupted"]) == (2, 10, True)


class Doomed:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_counts_even_when_python_drops_it(
    typed: Typed, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped(items: Iterator[object]) -> Iterator[object]:
        for item in items:
            Doomed()
            yield item

    monkeypatch.setattr(campaigning, "results", lambda *rest: dropped(results(*rest)))
    code, out, _ = typed("sim", "run", tiny, "--seeds", "0..9")
    assert code == 130
    assert "interrupted after 1 of 10 seeds" in out


def test_a_campaign_whose_simulator_fails_is_a_harness_error(
    typed: Typed, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        campaigning, "results", lambda *_: broken_off(iter([HarnessError(3, "Traceback")]))
    )
    code, out, err = typed("sim", "run", tiny, "--seeds", "3..4")
    assert (code, out.splitlines()[-1]) == (3, "verdict: harness error")
    assert "seed 3: the simulator failed" in err


def test_workers_end_at_once_when_the_work_is_broken_off() -> None:
    with suppress(KeyboardInterrupt), workers(2) as pool:
        for _ in range(2):
            pool.submit(signal.pause)
        raise KeyboardInterrupt
    for child in mp.active_children():
        child.join(20)
    assert mp.active_children() == []


def test_the_gate_and_the_hunt_tell_what_they_did_until_ctrl_c(
    typed: Typed, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaigning, "compared", lambda *_: broken_off(iter([(0, True)])))
    code, out, _ = typed("sim", "gate", tiny, "--seeds", "0..8")
    assert (code, out) == (130, "1 seeds twice, 0 with different event streams of 9, interrupted\n")
    caught = MutationScore("canary", "chaos", [1], 0, ["S1"])
    monkeypatch.setattr(killing, "score_all", lambda *_: broken_off(iter([caught])))
    code, out, _ = typed("sim", "mutants", "--only", "canary", "--only", "free_before_ack")
    assert code == 130
    assert out.splitlines()[-1] == "interrupted: 1 mutants were not hunted to the end"


def test_a_process_of_the_gate_that_fails_is_quoted(
    typed: Typed, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["sh", "-c", "echo 0; echo why >&2; exit 9"]
    with (
        TemporaryFile("w+") as said,
        Popen(command, stdout=PIPE, stderr=said, text=True) as process,
    ):
        lines = determinism._lines(process, said)
        assert next(lines) == "0\n"
        monkeypatch.setattr(campaigning, "compared", lambda *_: lines)
        code, _, err = typed("sim", "gate", tiny, "--seeds", "0..1")
    assert code == 3
    assert err.startswith("error: sim gate: a process that simulates failed; try: ")
    assert "    why" in err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("workloads = {}", "it has no workloads"),
        ("workloads = {sharing = 0}", "it has no workloads"),
        ("workloads = {sharing = 1}\nsizes = {partitions = [3, 2]}", "partitions: 3 is above 2"),
    ],
)
def test_a_swarm_that_cannot_be_drawn_from_is_refused(
    typed: Typed, tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(f'[swarm]\nname = "odd"\n{text}')
    code, _, err = typed("sim", "run", str(path), "--seeds", "0..1")
    assert code == 64
    assert why in err


# -- progress ---------------------------------------------------------------------------------


def test_a_speed_has_one_decimal_and_nothing_is_said_before_there_is_one() -> None:
    for speed, shown in ((None, ""), (2.363066841899323, "2.4 seeds/s")):
        task = cast(Task, SimpleNamespace(speed=speed))
        assert str(Speed("seeds").render(task)) == shown
    assert list(tracked(iter("abc"), 3, "letters")) == ["a", "b", "c"]


def test_a_campaign_and_the_gate_tell_how_far_they_are(
    typed: Typed, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "SHOWN_AFTER_S", 0.0)
    monkeypatch.setattr(lines, "_EVERY_S", 0.0)
    monkeypatch.setattr(campaigning, "compared", lambda *_: iter([(0, True), (1, True)]))
    for command in ("run", "gate"):
        code, _, err = typed("sim", command, tiny, "--seeds", "0..1")
        assert (code, err) == (0, "1 of 2 seeds\n2 of 2 seeds\n")
