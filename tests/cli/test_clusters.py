"""Clusters that cannot be: every wrong name, number and file is refused with its reason, and
nothing is left of the attempt. No partition process is started here."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from xpmem_emu.backend import processes as launcher
from xpmem_emu.cli import doctor as checks
from xpmem_emu.cli.main import run_command
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.cluster import paths
from xpmem_emu.cluster.topology import ClusterSpec, load_image

from .conftest import Outcome


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short name, for the sake of socket paths: pytest's has the name of the user
    and of the test in it."""
    with tempfile.TemporaryDirectory(prefix="xe", dir="/tmp") as name:
        folder = Path(name)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        monkeypatch.setenv("XPMEM_EMU_ARENAS", str(folder / "arenas"))
        monkeypatch.delenv("XPMEM_EMU_CLUSTER", raising=False)
        yield folder


class Live:
    """Runs commands against the live emulator."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        self._capture.readouterr()
        code = run_command(arguments, CommandSession())
        said = self._capture.readouterr()
        return Outcome(code, said.out, said.err, said.out.encode())


@pytest.fixture
def live(place: Path, capsys: pytest.CaptureFixture[str]) -> Live:
    return Live(capsys)


@pytest.mark.parametrize(
    "arguments", [["ps"], ["status"], ["logs", "p0"], ["get", "tasks"], ["task", "fork", "p0:1:1"]]
)
def test_a_cluster_that_is_not_there_is_named(live: Live, arguments: list[str]) -> None:
    outcome = live("--cluster", "foo", *arguments)
    assert outcome.code == 1
    assert "(ENOENT): there is no cluster foo; try: xpmem-emu --cluster foo up" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("arguments", "image"),
    [
        (["-n", "16"], "laptop"),
        (["-n", "17"], "patient"),
        (["-n", "48"], "patient"),
        (["-n", "48", "--image", "altix"], "altix"),
    ],
)
def test_a_crowd_of_partitions_boots_an_image_that_bears_it(
    live: Live, monkeypatch: pytest.MonkeyPatch, arguments: list[str], image: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(launcher, "up", lambda spec, *_rest: asked.append(spec.image))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    outcome = live("up", *arguments)
    assert (outcome.code, asked) == (0, [image])
    assert ("they boot the image patient" in outcome.err) == (image == "patient")


def test_up_says_in_a_line_that_memory_is_kept_elsewhere(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that nobody gave more, /dev/shm has room for nothing."""
    monkeypatch.delenv("XPMEM_EMU_ARENAS")
    sizes = {"/dev/shm": 64 << 20, "/tmp": 8 << 30}
    monkeypatch.setattr(paths, "_size", lambda folder: sizes[str(folder)])
    monkeypatch.setattr(launcher, "up", lambda *_: None)
    first, *rest = live("up", "-n", "3").err.splitlines()
    assert first == "memory is kept in /tmp: /dev/shm has only 64M (docker: --shm-size 1g)"
    assert rest == ["cluster default is up: p0, p1, p2"]


def test_ending_a_cluster_that_is_not_there_is_done_at_once_and_said(live: Live) -> None:
    outcome = live("--cluster", "foo", "down")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "cluster foo was not up: there is nothing to end\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[xpc]\nslots = 1", "xpc.slots: Expected `int` >= 2"),
        ("[xpc]\nslotz = 4", "xpc.slotz: no such key"),
        ('[deadlines]\nfault_attempt = "soon"', "deadlines.fault_attempt: 'soon' is not a time"),
        ("[xpc", "not TOML"),
    ],
)
def test_a_broken_image_is_refused_with_file_and_key(
    live: Live, place: Path, text: str, reason: str
) -> None:
    image = place / "broken.toml"
    image.write_text(text)
    outcome = live("up", "--image", str(image))
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: up (EINVAL): {image}: ")
    assert reason in outcome.err
    assert not (place / "run" / "xpmem-emu" / "default").exists()


def test_a_partid_that_the_image_has_no_room_for_is_refused(live: Live, place: Path) -> None:
    topology = place / "far.toml"
    topology.write_text('[[partition]]\nname = "a"\npartid = 256')
    outcome = live("up", "--topology", str(topology))
    assert outcome.code == 1
    assert outcome.err.startswith("error: up (EINVAL): partid 256 does not fit into the 8 bits")
    assert "partid_bits = 9" in outcome.err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has neither partition nor machine"),
        ('[[partition]]\nname = "a"\npartid = 4096', "partition[0].partid: Expected `int` <= 4095"),
        ('[[partition]]\nname = "a"\npartid = 1\nport = 4', "partition[0].port: no such key"),
        ('[[partition]]\nname="a"\npartid=1\n[[partition]]\nname="a"\npartid=2', "already"),
        ("[machine]\npartitions = 4097\nnodes = 1", "machine.partitions: Expected `int` <= 4096"),
        ("[machine]\npartitions = 4\nnodes = 129", "machine.nodes: Expected `int` <= 128"),
        ("[machine]\npartitions = 4\nnodes = 0", "machine.nodes: Expected `int` >= 1"),
        ("[machine]\npartitions = 4", "machine: Object missing required field `nodes`"),
        ("[[partition", "not TOML"),
    ],
)
def test_a_broken_topology_is_refused_with_file_and_key(
    live: Live, place: Path, text: str, reason: str
) -> None:
    topology = place / "broken.toml"
    topology.write_text(text)
    outcome = live("up", "--topology", str(topology))
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: up (EINVAL): {topology}: ")
    assert reason in outcome.err


@pytest.mark.parametrize("option", ["--image", "--topology"])
def test_an_unknown_image_or_topology_tells_which_are_shipped(live: Live, option: str) -> None:
    outcome = live("up", option, "nonesuch")
    assert outcome.code == 1
    assert "there is no 'nonesuch'" in outcome.err
    assert "try: one of " in outcome.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["up", "-n", "0"], "1<=x<=256"),
        (["up", "-n", "300"], "1<=x<=256"),
        (["up", "-n", "many"], "not a valid integer range"),
        (["up", "-n", "2", "--topology", "pair"], "Give either -n or --topology"),
        (["up", "--memory", "lots"], "write it like 4096, 64K"),
        (["up", "--timeout", "0s"], "the time must be longer than 0"),
        (["logs", "--since", "0s"], "the time must be longer than 0"),
        (["boot", "p0"], "Missing option '--topology'"),
    ],
)
def test_a_wrong_command_line_is_one_line(live: Live, arguments: list[str], hint: str) -> None:
    outcome = live(*arguments)
    assert outcome.code == 64
    assert outcome.err.count("\n") == 1
    assert hint in outcome.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["up", "--memory", "5000"], "(EINVAL): --memory 5000: memory.size: 5000 is not at least"),
        (["--cluster", "a/b", "up"], "'a/b' is no cluster name"),
        (["--cluster", "../x", "down"], "'../x' is no cluster name"),
        (["boot", "p9", "--topology", "pair"], "the topology has no partition p9"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(
    live: Live, arguments: list[str], reason: str
) -> None:
    outcome = live(*arguments)
    assert outcome.code == 1
    assert reason in outcome.err
    assert "; try: " in outcome.err


def test_a_doctor_finds_a_fit_machine_and_says_what_is_not_running(live: Live) -> None:
    outcome = live("doctor")
    assert outcome.code == 0, outcome.out
    assert "cluster default is not running" in outcome.out


def test_a_doctor_warns_of_socket_paths_that_are_too_long(
    live: Live, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / ("x" * 120)))
    outcome = live("doctor", "-o", "jsonl")
    assert outcome.code == 1
    assert '"check":"socket paths","health":"bad"' in outcome.out


@pytest.mark.parametrize("free", [500 << 20, 7 << 20, 1 << 20])
def test_a_doctor_advises_a_size_that_fits(
    live: Live, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    monkeypatch.setattr(checks, "arena_room", lambda _cluster: (Path("/tmp"), free))
    outcome = live("doctor", "-o", "json")
    assert outcome.code == 1
    (space,) = [one for one in json.loads(outcome.out)["items"] if one["check"] == "arena space"]
    advised = re.match(r"xpmem-emu up --memory (\d+M), ", space["remedy"])
    assert (advised is None) == (free < 3 << 20)
    if advised:
        asked: list[ClusterSpec] = []
        monkeypatch.setattr(launcher, "up", lambda spec, *_: asked.append(spec))
        assert live("up", "--memory", advised[1]).code == 0
        assert 3 * load_image("laptop", memory=asked[0].memory).memory.size <= free


def test_a_doctor_notices_what_a_crash_left_behind(live: Live, place: Path) -> None:
    (place / "run" / "xpmem-emu" / "old").mkdir(parents=True)
    assert "xpmem-emu down --cluster old" in live("doctor").out
