"""What the Makefile does beyond calling a tool."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONG_AGO = 1_000_000_000


def touched(path: Path, time: int) -> None:
    path.touch()
    os.utime(path, (time, time))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small clone whose environment is made already."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "xpmem_emu").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    touched(tmp_path / "pyproject.toml", LONG_AGO)
    touched(tmp_path / ".venv" / ".ready", LONG_AGO + 1)
    return tmp_path


def test_what_commands_import_is_compiled_even_where_python_writes_no_bytecode(clone: Path) -> None:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPYCACHEPREFIX", None)
    source, stamp = clone / "xpmem_emu" / "errors.py", clone / ".venv" / ".compiled"

    def compiled() -> set[int]:
        subprocess.run(["make", "setup"], cwd=clone, env=environment, check=True, timeout=60)
        return {each.stat().st_mtime_ns for each in clone.glob("xpmem_emu/__pycache__/errors.*")}

    touched(source, LONG_AGO)
    first = compiled()
    assert len(first) == 1
    touched(stamp, LONG_AGO + 2)
    assert compiled() == first
    touched(source, LONG_AGO + 3)
    assert compiled() != first


def made(clone: Path, *what: str) -> list[str]:
    done = subprocess.run(
        ["make", "--no-print-directory", *what],
        cwd=clone,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def test_the_demo_ends_with_where_the_command_is(clone: Path) -> None:
    command = clone / ".venv" / "bin" / "xpmem-emu"
    command.write_text("#!/bin/sh\necho verdict: valid\n")
    command.chmod(0o755)
    where = "the command is .venv/bin/xpmem-emu; to call it by its name: . .venv/bin/activate"
    assert made(clone, "demo") == ["verdict: valid", where]
    assert '@echo "ready; $(CALLED)"' in (clone / "Makefile").read_text(), "and so does the setup"


def test_the_first_setup_tells_what_it_fetches(clone: Path) -> None:
    """It takes a minute or two, of which pip says much that nobody wants to know."""
    said = (
        r"Collecting zmq>=1 (from x)\n  Downloading y\nBuilding wheels\nInstalling collected: z\n"
    )
    rule = f"played: ; @printf '{said}' | $(PROGRESS)"
    assert made(clone, f"--eval={rule}", "played") == [
        "  fetching zmq",
        "  building xpmem-emu",
        "  installing all of them",
    ]
