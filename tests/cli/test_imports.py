"""What commands import: who only looks does not wait for what others need."""

import os
import subprocess
import sys

import pytest

from xpmem_emu.cli.commands import Sections, gist_of
from xpmem_emu.cli.completion import COMPLETION_VARIABLE
from xpmem_emu.cli.laboratory import lab
from xpmem_emu.cli.main import cli
from xpmem_emu.cli.simulate import sim

HEAVY = {
    "numpy",
    "asyncio",
    "uvloop",
    "rich",
    "yaml",
    "psutil",
    "zmq.asyncio",
    "zmq.auth",
    "concurrent",
    "logging",
    "xpmem_emu.sim",
    "xpmem_emu.judge",
    "xpmem_emu.scenario",
    "xpmem_emu.mm",
    "xpmem_emu.inject",
    "xpmem_emu.xpc",
    "xpmem_emu.failpoints",
    "xpmem_emu.kernel.kernel",
    "xpmem_emu.live.partition",
}
TABLES = {
    "xpmem_emu.judge",
    "xpmem_emu.judge.invariants",
    "xpmem_emu.sim",
    "xpmem_emu.sim.explore",
    "xpmem_emu.sim.explore.catalog",
    "xpmem_emu.sim.mutations",
    "xpmem_emu.sim.mutations.mutant",
    "xpmem_emu.sim.mutations.slips",
    "xpmem_emu.sim.mutations.slips.table",
    "xpmem_emu.sim.mutations.table",
}
"""What the simulator has names of: who completes those needs no more of it."""
NOBODY = "nobody-has-this-one"
OF_CLIENTS = {"zmq", "xpmem_emu.client.blocking"}
OF_ANSWERS = {
    "msgspec",
    "json",
    "logging",
    "traceback",
    "fractions",
    "xpmem_emu.kernel",
    "xpmem_emu.cli.output",
    "xpmem_emu.cli.parameters",
}
"""What is for reading arguments and answers: help and the names of commands need neither."""
OF_PEOPLE = {
    "click",
    "rich",
    "yaml",
    "psutil",
    "xpmem_emu.backend",
    "xpmem_emu.cli",
    "xpmem_emu.scenario",
    "xpmem_emu.sim",
    "xpmem_emu.judge",
}
"""What a cluster would wait for at each start, and have no use for."""
RUN = """
import sys
from xpmem_emu.cli.main import main
sys.argv = ["xpmem-emu", *sys.argv[1:]]
try:
    main()
finally:
    import xpmem_emu.{also}
    print("\\n", *sys.modules)
"""


def imported(
    *arguments: str, also: str = "errors", completing: str = "", cluster: str = NOBODY
) -> set[str]:
    """The modules there are after such a command, and an import of the package's."""
    environment = os.environ | {"XPMEM_EMU_CLUSTER": cluster}
    if completing:
        environment |= {
            COMPLETION_VARIABLE: "bash_complete",
            "COMP_LINE": completing,
            "COMP_WORD": "",
            "COMP_WORDBREAKS": "",
        }
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(also=also), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert not completing or done.stdout.startswith("plain,")
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "completing"),
    [
        (["--help"], ""),
        (["get", "--help"], ""),
        (["sim", "--help"], ""),
        (["sim", "run", "--help"], ""),
        (["sim", "explore", "--help"], ""),
        (["sim", "mutants", "--help"], ""),
        (["lab", "--help"], ""),
        (["lab", "run", "--help"], ""),
        ([], "xpmem-emu g"),
        ([], "xpmem-emu run pau"),
        ([], "xpmem-emu sim e"),
        ([], "xpmem-emu sim run cha"),
        ([], "xpmem-emu sim shrink --se"),
        ([], "xpmem-emu sim shrink --mutant no_d"),
        ([], "xpmem-emu sim explore fence"),
        ([], "xpmem-emu sim mutants --only no_d"),
        ([], "xpmem-emu lab run mm"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each),
)
def test_help_and_completion_import_no_client(arguments: list[str], completing: str) -> None:
    found = imported(*arguments, completing=completing)
    assert (found - TABLES) & (HEAVY | OF_CLIENTS) == set()
    tabled = ("xpmem_emu.sim", "xpmem_emu.judge")
    assert {each for each in found if each.startswith(tabled)} <= TABLES


@pytest.mark.parametrize(
    ("arguments", "completing"), [(["--help"], ""), ([], "xpmem-emu g")], ids=["help", "completion"]
)
def test_what_commands_there_are_is_told_at_once(arguments: list[str], completing: str) -> None:
    found = imported(*arguments, completing=completing, also="__main__")
    assert found & OF_ANSWERS == set()


def test_a_command_that_looks_imports_a_client_and_nothing_heavy() -> None:
    found = imported("get", "segments", also="client.blocking")
    assert found & HEAVY == set()
    assert found >= OF_CLIENTS


def test_a_bar_is_imported_by_nobody_who_shows_none() -> None:
    assert "rich" not in imported("down")


def test_a_partition_imports_nothing_that_only_people_need() -> None:
    program = "import sys, xpmem_emu.live.partition, xpmem_emu.kernel.kernel; print(*sys.modules)"
    found = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    assert found & OF_PEOPLE == set()


def test_the_health_probe_imports_nothing() -> None:
    program = "import sys, xpmem_emu.health; print(*sys.modules)"
    found = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    assert found & (HEAVY | OF_CLIENTS | {"click", "msgspec", "typing"}) == set()


@pytest.mark.parametrize("group", [cli, sim, lab], ids=["xpmem-emu", "sim", "lab"])
def test_the_help_says_of_each_command_what_it_says_of_itself(group: Sections) -> None:
    told = {name: gist for gists in group.sections.values() for name, gist in gists.items()}
    assert told == {name: gist_of(command) for name, command in group.commands.items()}
    assert list(told) == list(group.commands)
