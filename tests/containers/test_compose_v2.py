"""The shipped file with the second generation of docker-compose: up, shared, broken, gone."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.conftest import NAMES, ROOT, V2, Project, command, read, running, stay_healthy
from xpmem_emu.backend import containers


@pytest.fixture(scope="module")
def second(image: None) -> Iterator[Project]:
    with running(V2) as made:
        print(command(V2, "version").strip(), f"healthy after {made.until_healthy():.1f} s")
        yield made


def test_memory_is_shared_and_a_killed_container_makes_no_other_one_unhealthy(
    second: Project,
) -> None:
    segid = second.shell("export", "README.md", "--on", "p0").stdout.strip()
    for name in ("p1", "p3"):
        there = second.shell("attach", segid, "--on", name).stdout.strip()
        assert second.shell("load", there, "11", "--text").stdout.strip() == "# xpmem-emu"
    containers.crash(second.cluster, "p0")
    stay_healthy([read(second.inspect(name), "Id") for name in NAMES if name != "p0"])
    assert second.shell("reboot", "p0").returncode == 0


def test_a_scenario_is_valid_with_it_too(image: None, tmp_path: Path) -> None:
    (tmp_path / "docker-compose").symlink_to(V2)
    done = subprocess.run(
        [
            str(ROOT / ".venv" / "bin" / "xpmem-emu"),
            "run",
            "restart",
            "--on",
            "compose",
            "--runs",
            str(tmp_path / "runs"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.stdout.splitlines()[-1] == "verdict: valid", done.stdout + done.stderr
