"""The Slurm script under a Slurm that is played: two tasks on this host become two partitions."""

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from xpmem_emu.live.client import XpmemError, connect
from xpmem_emu.live.paths import arena_place
from xpmem_emu.live.topology import read_topology

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "slurm.sh"
UP_S = 60
SCONTROL = """#!/bin/bash
[ "$1 $2" = "show hostnames" ] && echo "$3" | tr , '\\n'
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for n in $(seq 0 $((SLURM_NTASKS - 1))); do SLURM_PROCID=$n "$@" & done
trap 'kill $(jobs -p); wait' TERM
wait
"""


def free_port() -> int:
    """A port P below those that the system gives to clients; P+1, P+500 and P+501 are free too."""
    while True:
        port = random.randrange(20000, 30000)
        with suppress(OSError), ExitStack() as stack:
            for each in (port, port + 1, port + 500, port + 501):
                stack.enter_context(socket.create_server(("", each)))
            return port


@pytest.fixture
def job(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job whose commands are ours."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    arenas = tempfile.mkdtemp(prefix="xe", dir=arena_place())
    runs = tempfile.mkdtemp(prefix="xe")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("XPMEM_EMU_")
    }
    yield environment | {
        "PATH": f"{tools}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
        "XPMEM_EMU_FOLDER": str(tmp_path), "XPMEM_EMU_ARENAS": arenas, "XDG_RUNTIME_DIR": runs,
        "XPMEM_EMU_PORT": str(free_port()),
    }  # fmt: skip
    for folder in (arenas, runs):
        subprocess.run(["rm", "-r", folder], check=True)


def test_hosts_and_tasks_become_partitions_and_domains(
    job: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bin" / "srun").write_text("#!/bin/true\n")
    slurm = {"SLURM_JOB_NODELIST": "a1,a2,b9", "SLURM_TASKS_PER_NODE": "2(x2),1"}
    done = subprocess.run([SCRIPT], env=job | slurm, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("5 partitions"), done.stderr
    port = int(job["XPMEM_EMU_PORT"])
    found = read_topology(str(tmp_path / "xpmem-emu-7" / "topology.toml"))
    assert [(one.name, one.domain, one.endpoint) for one in found] == [
        ("p0", "a1", f"tcp://a1:{port}"), ("p1", "a1", f"tcp://a1:{port + 1}"),
        ("p2", "a2", f"tcp://a2:{port}"), ("p3", "a2", f"tcp://a2:{port + 1}"),
        ("p4", "b9", f"tcp://b9:{port}"),
    ]  # fmt: skip


@pytest.mark.live
def test_the_tasks_of_a_job_find_each_other_and_share(
    job: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = {"SLURM_JOB_NODELIST": "localhost", "SLURM_TASKS_PER_NODE": "2", "SLURM_NTASKS": "2"}
    script = subprocess.Popen([SCRIPT], env=job | slurm, stdout=subprocess.PIPE, text=True)
    assert script.stdout is not None
    try:
        said = script.stdout.readline()
        assert said == f"2 partitions; clients: source {tmp_path}/xpmem-emu-7/clients.sh\n"
        way_in = ["bash", "-c", f"{said.partition(': ')[2].strip()}; env | grep ^XPMEM_EMU_"]
        for line in subprocess.check_output(way_in, text=True).splitlines():
            monkeypatch.setenv(*line.split("=", 1))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        wait_until_active()
        with connect("p0") as p0, connect("p1") as p1:
            exporter, importer = p0.spawn(), p1.spawn()
            address = exporter.mmap(4096)
            exporter.store(address, b"a job")
            segid = exporter.xpmem_make(address, 4096)
            at = importer.xpmem_attach(importer.xpmem_get(segid), 0, 4096)
            assert importer.load(at, 5) == b"a job"
    finally:
        script.send_signal(signal.SIGTERM)
        script.wait(30)
        script.stdout.close()


def wait_until_active() -> None:
    deadline = time.monotonic() + UP_S
    while True:
        with suppress(XpmemError), connect("p0") as p0:
            if p0.status()["peers"]["1"]["state"] == "ACTIVE":
                return
        assert time.monotonic() < deadline, "the partitions do not find each other"
