"""Commands typed one after the other into one shell of a user who has nothing but the command."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_BETWEEN = "---- command "
_TIMEOUT_S = 240


@dataclass(frozen=True)
class Said:
    """What a command said, on stdout and stderr together, and its exit code."""

    code: int
    lines: list[str]


def environment(home: Path, arenas: Path) -> dict[str, str]:
    """Nothing of ours, and in PATH what every system has, the command, and its Python."""
    tools = home / "bin"
    tools.mkdir()
    for name in ("xpmem-emu", "xpmem-emu-health", "python3"):
        beside = Path(sys.executable).parent / name
        (tools / name).write_text(f'#!/bin/sh\nexec "{beside}" "$@"\n')
        (tools / name).chmod(0o755)
    run = home / "run"
    run.mkdir(mode=0o700)
    return {
        "HOME": str(home),
        "PATH": f"{tools}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "XDG_RUNTIME_DIR": str(run),
        "XPMEM_EMU_ARENAS": str(arenas),
    }


def typed(commands: Sequence[str], home: Path, env: dict[str, str]) -> list[Said]:
    """Runs `commands` in one bash, in the folder `home`."""
    lines = ["set -o pipefail"]
    for command in commands:
        lines += [command, f'printf "\\n%s%s\\n" "{_BETWEEN}" $?']
    bash = shutil.which("bash")
    assert bash is not None
    process = subprocess.Popen(
        [bash, "--norc", "-c", "\n".join(lines)],
        cwd=home,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    return list(_pieces(said))


def _pieces(text: str) -> Iterator[Said]:
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_BETWEEN):
            yield Said(int(line.removeprefix(_BETWEEN)), lines[:-1] if not lines[-1] else lines)
            lines = []
        else:
            lines.append(line)


# -- comparing --------------------------------------------------------------------------------

_VARYING = re.compile(
    r"(?P<bits>0x[0-9a-f]+|\b[0-9a-f]{16,})"
    r"|(?P<time>\b\d+(?:\.\d+)? ?(?:ns|us|ms|s)\b)"
    r"|(?P<faults>\b\d+ faults\b)"
    r"|(?P<long>\b\d{9,}\b)"
    r"|(?P<drawn>-{2,})"
    r"|(?P<gap> +)"
    r"|(?P<left_out>\.\.\.)"
)
_LIKE = {
    "bits": r"(?:0x)?[0-9a-f]+",
    "time": r"[\d.]+ ?(?:ns|us|ms|s)",
    "long": r"\d+",
    "faults": r"\d+ faults",
    "drawn": r"-+",
    "gap": r" *",
    "left_out": r".*",
}
"""What is never the same twice, and what it always looks like. How many faults bring so many pages
depends on who is how fast."""


def pattern(line: str) -> re.Pattern[str]:
    """What a line that was said looks like, if it is as the page shows it."""
    parts, end = [], 0
    for match in _VARYING.finditer(line.strip()):
        kind = match.lastgroup
        assert kind is not None
        parts += [re.escape(line.strip()[end : match.start()]), _LIKE[kind]]
        end = match.end()
    return re.compile(" *" + "".join(parts) + re.escape(line.strip()[end:]) + " *")


def missing(shown: Sequence[str], said: Sequence[str], ordered: bool = True) -> list[str]:
    """The lines that a page shows and that were not said, in the order of the page if `ordered`.
    A line of dots stands for any others, and without one nothing else may be said."""
    dots = [line.strip() == "..." for line in shown]
    left = [line for line in said if line.strip()]
    lost: list[str] = []
    for line in [line for line in shown if line.strip() and line.strip() != "..."]:
        places = [at for at, each in enumerate(left) if pattern(line).fullmatch(each)]
        if not places:
            lost.append(line)
        elif ordered and any(dots):
            left = left[places[0] + 1 :]
        elif ordered and places[0] > 0:
            lost.append(f"{left[0]} (was not expected before {line})")
            left = left[places[0] + 1 :]
        else:
            del left[places[0]]
    return lost if any(dots) else [*lost, *(f"{line} (was not expected)" for line in left)]


def kept(env: dict[str, str]) -> list[str]:
    """What is left of clusters: folders, arenas, processes."""
    folders = [
        *Path(env["XDG_RUNTIME_DIR"]).glob("xpmem-emu/*"),
        *Path(env["XPMEM_EMU_ARENAS"]).glob("*"),
    ]
    return [*map(str, folders), *_processes(env["XDG_RUNTIME_DIR"])]


def _processes(mark: str) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in line and path.parent.name != str(os.getpid()):
            yield line
