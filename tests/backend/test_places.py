"""Where clusters are found: processes here, partitions elsewhere, containers of a played Docker."""

import errno
import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.live.conftest import Home, fake_spec
from xpmem_emu.backend import containers, processes
from xpmem_emu.backend.launcher import launcher_of
from xpmem_emu.cluster import docker
from xpmem_emu.cluster.keys import Capability, Client, KeyFolder, Peer
from xpmem_emu.cluster.liveness import LifeRecord, life_path
from xpmem_emu.cluster.locator import location_of, locations
from xpmem_emu.cluster.paths import arena_folder, make_own_folder
from xpmem_emu.errors import KernelError

FAKE = """#!/bin/sh
case $1 in
  ps) cat {folder}/ps ;;
  inspect) cat {folder}/inspect ;;
  cp) cat {folder}/keys.tar ;;
  *) echo "$@" >> {folder}/done ;;
esac
"""


class Engine:
    """A docker command that knows the containers it was told of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, object]] = []
        (folder / "docker").write_text(FAKE.format(folder=folder))
        (folder / "docker").chmod(0o755)

    def add(self, name: str, status: str = "running", project: str = "lab") -> None:
        """One more container, of the shipped topology."""
        number = len(self.rows)
        self.rows.append(
            {
                "Id": f"{number:064x}",
                "State": {"Status": status, "Pid": 0},
                "Config": {
                    "Env": ["XPMEM_EMU_KEYS=/keys"],
                    "Labels": {
                        "xpmem-emu.topology": "compose",
                        "com.docker.compose.project": project,
                        "com.docker.compose.service": name,
                    },
                },
                "NetworkSettings": {
                    "Ports": {
                        "7100/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(32000 + number)}]
                        if status == "running"
                        else None
                    }
                },
            }
        )
        (self.folder / "ps").write_text("\n".join(str(row["Id"]) for row in self.rows))
        (self.folder / "inspect").write_text(json.dumps(self.rows))


@pytest.fixture
def engine(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    made = Engine(tmp_path)
    folder = KeyFolder(tmp_path / "keys")
    folder.complete({"p0": Peer(0), "p1": Peer(1), "me": Client(0, [], Capability.OPERATE)})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder.path, "keys")
    (tmp_path / "keys.tar").write_bytes(packed.getvalue())
    docker._copied_keys.cache_clear()
    return made


Refusal = Callable[..., KernelError]


def test_containers_are_found_by_label_with_ports_and_the_clients_key(
    engine: Engine, home: Home
) -> None:
    engine.add("p1")
    engine.add("p0")
    found = locations("compose")
    assert list(found) == ["p0", "p1"]
    assert found["p0"].console == "tcp://127.0.0.1:32001"
    keys = Path(found["p0"].keys)
    assert sorted(each.name for each in (keys / "private").iterdir()) == ["me.key_secret"]
    assert stat.S_IMODE((keys / "private" / "me.key_secret").stat().st_mode) == 0o600


def test_the_copied_keys_end_with_their_program_and_are_those_of_who_keeps_them(
    engine: Engine, home: Home, tmp_path: Path
) -> None:
    engine.add("p0")
    fake = (tmp_path / "docker").read_text()
    says = {"ps": "*xpmem-emu.keys=/keys*) echo keeper ;;", "cp": "keeper:/keys) true ;;"}
    (tmp_path / "docker").write_text(
        fake.replace(
            "case $1 in",
            f"case $1 in\n  ps) case $* in {says['ps']} *) cat {tmp_path}/ps ;; esac ;;\n"
            f"  cp) case $2 in {says['cp']} *) exit 1 ;; esac; cat {tmp_path}/keys.tar ;;",
        )
    )
    text = (
        "from xpmem_emu.cluster.locator import location_of;"
        " print(location_of('compose', 'p0').keys, flush=True)"
    )
    root = home.run / "xpmem-emu-keys"
    killed = subprocess.Popen(
        [sys.executable, "-c", f"{text}; input()"],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        assert (left / "private" / "me.key_secret").exists()
        used = Path(subprocess.check_output([sys.executable, "-c", text], text=True).strip())
        assert used.parent == left.parent == root
        assert [each.name for each in root.iterdir()] == [left.name], "one runs, one has ended"
        killed.kill()
    subprocess.run([sys.executable, "-c", text], check=True)
    assert not root.exists(), "the next one removes what a killed one left"


def test_a_container_that_ended_has_no_console_and_says_what_to_do(
    engine: Engine, refusal: Refusal
) -> None:
    engine.add("p0", status="exited")
    assert location_of("compose", "p0").console == ""
    error = refusal(containers.crash, "compose", "p0")
    assert (error.errno, error.remedy) == (errno.ESRCH, "xpmem-emu --cluster compose reboot p0")


def test_two_projects_must_be_told_apart(engine: Engine, refusal: Refusal) -> None:
    engine.add("p0", project="one")
    engine.add("p0", project="two")
    error = refusal(locations, "compose")
    assert error.errno == errno.EEXIST
    assert "compose-one, compose-two" in error.cause


def test_a_paused_container_goes_on_before_it_is_killed(engine: Engine, tmp_path: Path) -> None:
    engine.add("p0", status="paused")
    containers.crash("compose", "p0")
    done = [line.split()[0] for line in (tmp_path / "done").read_text().splitlines()]
    assert done == ["unpause", "kill", "wait"]


def test_no_containers_is_a_refusal_with_the_command_to_type(
    engine: Engine, refusal: Refusal, tmp_path: Path
) -> None:
    (tmp_path / "ps").write_text("")
    assert refusal(locations, "compose").remedy == "docker-compose up -d --build"
    assert refusal(containers.up).remedy == "docker-compose up -d --build"
    assert refusal(containers.clean).remedy == "docker-compose down --volumes"


def test_a_topology_says_where_partitions_are_that_others_started(
    home: Home, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPMEM_EMU_TOPOLOGY", "compose")
    assert location_of("anything", "p3").console == "tcp://p3:7100"
    error = refusal(launcher_of, "anything")
    assert (error.errno, "docker-compose restart" in error.remedy) == (errno.EOPNOTSUPP, True)


def test_the_files_of_a_partition_that_cannot_be_seen_are_left_alone(
    home: Home, refusal: Refusal
) -> None:
    make_own_folder(arena_folder("t"))
    path = life_path(arena_folder("t"), 0)
    with path.open("w") as file:
        nobody = LifeRecord(boot=1, pid=(1 << 22) + 1, started=1, first=1)
        file.write(msgspec.json.encode(nobody).decode())
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        error = refusal(processes.up, fake_spec())
        assert (error.errno, str(path) in error.cause) == (errno.EEXIST, True)
        assert path.exists()
    path.unlink()
