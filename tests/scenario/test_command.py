"""`xpmem-emu run` as people type it: the verdict, the exit code, the bundle, and Ctrl-C."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.conftest import Home
from tests.scenario.conftest import SHARED, written
from xpmem_emu.backend.live_backend import LiveBackend
from xpmem_emu.cli.main import run_command
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.scenario.story import is_story
from xpmem_emu.shipped import find_toml, shipped_names

COMMAND = (sys.executable, "-m", "xpmem_emu.cli.main")

Said = tuple[int, str, str]
Typed = Callable[..., Said]


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    """Runs a command line in a folder of its own; its code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run_line(*arguments: str) -> Said:
        capsys.readouterr()
        code = run_command(["run", *arguments], CommandSession())
        return code, *capsys.readouterr()

    return run_line


def test_a_valid_run_tells_its_phases_and_leaves_a_bundle(typed: Typed, tmp_path: Path) -> None:
    code, out, err = typed("sharing", "--seed", "3")
    assert code == 0
    assert out.splitlines()[-1] == "verdict: valid"
    assert "setup: 7 steps" in err
    assert "load: 6 steps" in err
    latest = tmp_path / "runs" / "sharing" / "latest"
    assert {path.name for path in latest.iterdir()} == {
        "scenario.toml",
        "story.txt",
        "result.json",
        "events.jsonl",
        "diagram.svg",
        "trace.json",
        "replay",
    }
    result = json.loads((latest / "result.json").read_text())
    assert (result["verdict"], result["ground"], result["seed"]) == ("valid", "sim", 3)
    events = [json.loads(line) for line in (latest / "events.jsonl").read_text().splitlines()]
    assert len(events) == result["events"]
    assert "importer load at 5" in (latest / "story.txt").read_text()
    replay = shlex.split((latest / "replay").read_text())
    assert typed(*replay[2:])[0] == 0


def test_an_invalid_run_says_which_step_and_what_came(typed: Typed, tmp_path: Path) -> None:
    path = written(tmp_path, setup=SHARED, load='importer load at 5 => "howdy"')
    code, out, _ = typed(str(path))
    assert code == 1
    assert ", load: importer load at 5 => \"howdy\": came b'hello'" in out.splitlines()[0]
    assert out.splitlines()[-1] == "verdict: invalid"
    assert (tmp_path / "runs" / "told" / "latest" / "replay").exists()


def test_the_list_explains_every_shipped_scenario_in_a_line(typed: Typed) -> None:
    code, out, _ = typed("--list")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines()[1:]]
    shipped = shipped_names("scenarios")
    assert names == [name for name in shipped if is_story(find_toml("scenarios", name))]
    assert not any(name.startswith("chaos") for name in names)
    document = json.loads(typed("--list", "-o", "json")[1])
    assert document["schema"] == "xpmem-emu/scenarios/v1"
    assert all(item["title"] and item["shows"] for item in document["items"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "which scenario?"),
        (("no-such-story",), "one of across-domains"),
        (("chaos",), "xpmem-emu sim run"),
        (("sharing", "--on", "moon"), "'moon' is not one of"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(
    typed: Typed, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = typed(*arguments)
    assert code == 64
    assert says in err
    assert len(err.splitlines()) == 1


def test_the_simulator_sends_a_story_here(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["sim", "run", "sharing", "--seed", "1"], CommandSession()) == 64
    assert "try: xpmem-emu run sharing" in capsys.readouterr().err


def test_a_ground_that_fails_is_a_harness_error(
    typed: Typed, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveBackend, "_specs", lambda self: ())
    code, _, err = typed("sharing", "--on", "live")
    assert code == 3
    assert err.splitlines()[-1].startswith("error: run")
    assert home.leftovers() == []


@pytest.mark.live
def test_an_invalid_live_run_is_told_and_taken_down(
    typed: Typed, tmp_path: Path, home: Home
) -> None:
    path = written(tmp_path, setup=SHARED, load="hang p0\nimporter load at 8 => zeros")
    code, out, _ = typed(str(path), "--on", "live")
    assert code == 1
    assert "came SIGBUS" in out
    assert home.leftovers() == []


@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_live_run_takes_its_partitions_down(
    tmp_path: Path, home: Home, number: signal.Signals
) -> None:
    path = written(
        tmp_path, '[cluster]\npatience = "300s"', setup=SHARED, load="hang p0\nwait pins on p1 == 1"
    )
    process = subprocess.Popen(
        [*COMMAND, "run", str(path), "--on", "live"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("setup"):
                break
        process.send_signal(number)
        assert process.wait(90) == 130
    finally:
        process.kill()
        process.communicate()
    assert home.leftovers() == []
    assert list(tmp_path.glob("xpmem-emu-run-*")) == []
