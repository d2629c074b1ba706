"""The shipped scenarios of failures from outside, on containers, judged like everywhere else."""

import subprocess
from pathlib import Path

import pytest

from tests.containers.conftest import ROOT, command


@pytest.mark.parametrize("scenario", ["sharing", "kill", "pause", "restart", "network-cut"])
def test_a_scenario_is_valid_on_containers_and_leaves_nothing(
    scenario: str, tmp_path: Path
) -> None:
    before = command("docker", "ps", "--all", "--quiet"), command("docker", "volume", "ls", "-q")
    done = subprocess.run(
        [
            str(ROOT / ".venv" / "bin" / "xpmem-emu"),
            "run",
            scenario,
            "--on",
            "compose",
            "--runs",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.stdout.splitlines()[-1] == "verdict: valid", done.stdout + done.stderr
    after = command("docker", "ps", "--all", "--quiet"), command("docker", "volume", "ls", "-q")
    assert after == before
