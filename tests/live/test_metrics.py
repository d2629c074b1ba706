"""How partitions are, in numbers that can be scraped."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from xpmem_emu.backend import processes
from xpmem_emu.metrics import GAUGES

from .conftest import Home, real_spec

pytestmark = pytest.mark.live

PROBE = str(Path(sys.executable).with_name("xpmem-emu-health"))
Metrics = dict[tuple[str, str], float]


def read(text: str) -> Metrics:
    """Values by metric and partition, of a text that has every line that the format asks for."""
    values: Metrics = {}
    described: list[str] = []
    for line in text.splitlines():
        if line.startswith("# "):
            _, kind, name, rest = line.split(maxsplit=3)
            assert rest == "gauge" if kind == "TYPE" else rest
            described += [name] if kind == "TYPE" else []
            continue
        labelled, value = line.rsplit(" ", 1)
        name, label = labelled.removesuffix('"}').split('{partition="')
        assert name == described[-1]
        values[name.removeprefix("xpmem_emu_"), label] = float(value)
    assert text.endswith("\n")
    assert described == [f"xpmem_emu_{name}" for name in GAUGES]
    return values


def printed(*words: str) -> Metrics:
    return read(subprocess.check_output([PROBE, "metrics", *words], text=True, timeout=60))


@pytest.fixture
def _two_partitions(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPMEM_EMU_CLUSTER", "real")
    processes.up(real_spec("real", 2))


@pytest.mark.usefixtures("_two_partitions")
def test_a_partition_is_well_that_is_active_with_all_and_lost_ones_are_told() -> None:
    values = printed()
    assert {partition for _, partition in values} == {"p0", "p1"}
    for partition in ("p0", "p1"):
        told = {name: values[name, partition] for name in GAUGES}
        assert told.pop("uptime_seconds") > 0
        assert told == {
            "ready": 1,
            "well": 1,
            "peers": 1,
            "peers_active": 1,
            "tasks": 0,
            "frames": (16 << 20) / 4096,
            "frames_used": 0,
            "frames_quarantined": 0,
        }
    processes.crash("real", "p1")
    assert printed("p1") == {("ready", "p1"): 0, ("well", "p1"): 0}
    while (left := printed("p0"))["peers_active", "p0"]:
        continue
    assert (left["ready", "p0"], left["peers", "p0"], left["well", "p0"]) == (1, 1, 0)


@pytest.fixture
def page(home: Home) -> Iterator[str]:
    """Where a server answers that runs beside the partitions."""
    environment = os.environ | {"XPMEM_EMU_CLUSTER": "real"}
    with subprocess.Popen(
        [PROBE, "serve", "0"], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert said.startswith("metrics at port ")
        yield f"http://127.0.0.1:{said.split()[-1]}"
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def test_the_numbers_can_be_scraped_whoever_boots_later(page: str, home: Home) -> None:
    def scraped() -> Metrics:
        with urllib.request.urlopen(f"{page}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            return read(answer.read().decode())

    assert scraped() == {}
    processes.up(real_spec("real", 1))
    assert scraped()["well", "p0"] == 1
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{page}/", timeout=60)


def test_a_port_that_is_taken_or_none_is_told(page: str) -> None:
    port = page.rpartition(":")[2]
    for taken, why in ((port, "Address already in use"), ("70000", "0-65535")):
        done = subprocess.run(
            [PROBE, "serve", taken], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"port {taken}: ")
        assert why in done.stderr
    assert subprocess.run([PROBE, "serve", "x"], stderr=subprocess.DEVNULL).returncode == 64
