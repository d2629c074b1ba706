"""The scripts for Slurm and MPI under launchers that are played: two tasks on this host become two
partitions. `make slurm` runs the first under a real Slurm.
"""

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

from xpmem_emu.client.blocking import connect
from xpmem_emu.client.failures import XpmemError
from xpmem_emu.cluster.paths import arena_place
from xpmem_emu.cluster.topology import read_topology

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "slurm.sh"
MPIRUN = ROOT / "deploy" / "mpirun.sh"
UP_S = 60
SCONTROL = """#!/bin/bash
[ "$1 $2" = "show hostnames" ] && echo "$3" | tr , '\\n'
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for n in $(seq 0 $((SLURM_NTASKS - 1))); do RANK=$n "$@" & done
trap 'wait' TERM
wait
"""
KEEP = """#!/bin/sh
for last; do :; done
cp "$last" "$XPMEM_EMU_FOLDER/kept.toml"
"""


def free_port() -> int:
    """A port P below those that the system gives to clients; P+1, P+50 and P+51 are free too."""
    while True:
        port = random.randrange(20000, 30000)
        with suppress(OSError), ExitStack() as stack:
            for each in (port, port + 1, port + 50, port + 51):
                stack.enter_context(socket.create_server(("", each)))
            return port


@pytest.fixture
def job(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job whose commands are ours."""
    tools = tmp_path / "bin"
    tools.mkdir()
    launchers = {"srun": "SLURM_PROCID", "mpirun": "OMPI_COMM_WORLD_RANK", "mpiexec": "PMI_RANK"}
    scripts = {name: SRUN.replace("RANK", rank) for name, rank in launchers.items()}
    for name, text in {"scontrol": SCONTROL, **scripts}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    arenas = tempfile.mkdtemp(prefix="xe", dir=arena_place())
    runs = tempfile.mkdtemp(prefix="xe")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("XPMEM_EMU_")
    }
    yield environment | {
        "PATH": f"{tools}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "XPMEM_EMU_FOLDER": str(tmp_path),
        "XPMEM_EMU_ARENAS": arenas,
        "XDG_RUNTIME_DIR": runs,
        "XPMEM_EMU_PORT": str(free_port()),
    }
    left = [each for folder in (arenas, runs) for each in Path(folder).rglob("*")]
    for folder in (arenas, runs):
        subprocess.run(["rm", "-r", folder], check=True)
    assert [each for each in left if not each.name.startswith("xpmem-emu")] == []


def test_hosts_and_tasks_become_partitions_and_domains(job: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "srun").write_text(KEEP)
    slurm = {"SLURM_JOB_NODELIST": "a1,a2,b9", "SLURM_TASKS_PER_NODE": "2(x2),1"}
    done = subprocess.run([SCRIPT], env=job | slurm, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("5 partitions"), done.stderr
    port = int(job["XPMEM_EMU_PORT"])
    found = read_topology(str(tmp_path / "kept.toml"))
    assert [(one.name, one.domain, one.endpoint) for one in found] == [
        ("p0", "a1", f"tcp://a1:{port}"),
        ("p1", "a1", f"tcp://a1:{port + 1}"),
        ("p2", "a2", f"tcp://a2:{port}"),
        ("p3", "a2", f"tcp://a2:{port + 1}"),
        ("p4", "b9", f"tcp://b9:{port}"),
    ]
    assert {one.image for one in found} == {"patient"}
    assert not (tmp_path / "xpmem-emu-7").exists(), "a job that ended leaves no keys"


def test_jobs_choose_ports_by_their_number_and_refuse_too_many_tasks(
    job: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bin" / "srun").write_text(KEEP)
    slurm = job | {"SLURM_JOB_NODELIST": "a1", "SLURM_TASKS_PER_NODE": "2"}
    del slurm["XPMEM_EMU_PORT"]
    ports = set[str]()
    for number in ("7", "8", "9999"):
        subprocess.run([SCRIPT], env=slurm | {"SLURM_JOB_ID": number}, check=True, timeout=60)
        found = read_topology(str(tmp_path / "kept.toml"))
        ports |= {place.rpartition(":")[2] for one in found for place in (one.listen, one.console)}
    assert len(ports) == 3 * 4
    assert all(10000 <= int(port) < 32768 for port in ports)
    crowd = slurm | {"SLURM_TASKS_PER_NODE": "51"}
    done = subprocess.run([SCRIPT], env=crowd, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: 51 tasks on a1, at most 50; try: more --nodes\n"


@pytest.mark.live
@pytest.mark.parametrize("launcher", ["", "mpirun"])
def test_the_tasks_of_a_job_find_each_other_and_share(
    job: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    slurm = {
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_TASKS_PER_NODE": "2",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "0",
        "XPMEM_EMU_LAUNCH": launcher,
    }
    read = shared(job | slurm, tmp_path / "xpmem-emu-7", monkeypatch, str(SCRIPT))
    assert read == b"a job"


@pytest.mark.live
def test_ranks_without_slurm_find_each_other_and_share(
    job: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin" / "hostname").write_text("#!/bin/sh\necho localhost\n")
    (tmp_path / "bin" / "hostname").chmod(0o755)
    ranks = {"SLURM_NTASKS": "2", "PMI_SIZE": "2"}
    folder = tmp_path / "ranks"
    read = shared(job | ranks, folder, monkeypatch, "mpiexec", str(MPIRUN), str(folder))
    assert read == b"a job"


def test_no_rank_is_a_usage_error(job: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run([MPIRUN, tmp_path / "x"], env=job, capture_output=True, text=True)
    assert (done.returncode, "try: mpirun -n 4" in done.stderr) == (64, True)
    assert not (tmp_path / "x").exists()


def shared(
    environment: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, *command: str
) -> bytes:
    """Start two partitions, share a page between them, and end all as Slurm does. Returns what the
    importer read of `b"a job"`."""
    script = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert script.stdout is not None
    try:
        said = script.stdout.readline()
        assert said == f"2 partitions; clients: source {folder}/clients.sh\n"
        way_in = ["bash", "-c", f"{said.partition(': ')[2].strip()}; env | grep ^XPMEM_EMU_"]
        for line in subprocess.check_output(way_in, text=True).splitlines():
            monkeypatch.setenv(*line.split("=", 1))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder.parent))
        for _ in range(2):
            while '"event": "boot"' not in (line := script.stdout.readline()):
                assert line, "the partitions have ended"
                assert "error: " not in line, line  # the others go on, and nothing more is said
        wait_until_active()
        with connect("p0") as p0, connect("p1") as p1:
            exporter, importer = p0.spawn(), p1.spawn()
            address = exporter.mmap(4096)
            exporter.store(address, b"a job")
            segid = exporter.xpmem_make(address, 4096)
            at = importer.xpmem_attach(importer.xpmem_get(segid), 0, 4096)
            read = importer.load(at, 5)
    finally:
        os.killpg(script.pid, signal.SIGTERM)
        script.wait(30)
        script.stdout.close()
    assert not folder.exists(), "private keys end with the job"
    return read


def wait_until_active() -> None:
    deadline = time.monotonic() + UP_S
    while True:
        with suppress(XpmemError), connect("p0") as p0:
            if p0.status()["peers"]["1"]["state"] == "ACTIVE":
                return
        assert time.monotonic() < deadline, "the partitions do not find each other"
