"""What the shell completes, and how bash is answered."""

import subprocess
from collections.abc import Iterator
from typing import Protocol

import click
import pytest

from xpmem_emu.cli.completion import COMPLETION_VARIABLE
from xpmem_emu.cli.fault_words import next_words
from xpmem_emu.cli.main import cli
from xpmem_emu.scenario.story import shipped_stories
from xpmem_emu.shipped import shipped_names

from .conftest import Shell


class Complete(Protocol):
    """What bash is told for a line whose end is the cursor; of a word in pieces the last one."""

    def __call__(self, line: str, word: str = "", breaks: str = "") -> list[str]: ...


FREE = {
    "SIZE",
    "TIME",
    "N",
    "MODE",
    "ADDR",
    "FIELD",
    "[DATA]",
    "DATA",
    "GUEST_ADDRESS",
    "HEX",
    "WORD",
    "UID",
    "GID",
    "PATTERN",
    "TEXT",
    "LINE",
    "A..B",
    "OLD_SIZE",
    "NEW_SIZE",
}
NAMED_NOW = {
    "export --name",
    "task spawn --name",
    "keys init --client",
    "keys new name",
    "keys new --partition",
    "amo operand",
    "raw-load frame",
}


@pytest.fixture
def complete(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Complete:
    def ask(line: str, word: str = "", breaks: str = "") -> list[str]:
        for name, value in {
            COMPLETION_VARIABLE: "bash_complete",
            "COMP_LINE": line,
            "COMP_WORD": word,
            "COMP_WORDBREAKS": breaks,
        }.items():
            monkeypatch.setenv(name, value)
        capfdbinary.readouterr()
        with pytest.raises(SystemExit):
            shell()
        said = capfdbinary.readouterr()
        monkeypatch.delenv(COMPLETION_VARIABLE)
        assert said.err == b""
        return [each.removeprefix("plain,") for each in said.out.decode().splitlines() if each]

    return ask


@pytest.fixture
def segid(shell: Shell) -> str:
    return shell.ok("export", "--size", "4K", "--on", "p0")


@pytest.fixture
def handle(shell: Shell, segid: str) -> str:
    return shell.ok("attach", segid, "--on", "p1")


def parameters(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Parameter]]:
    for each in command.params:
        yield f"{path} {each.opts[-1]}".strip(), each
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from parameters(inner, f"{path} {name}".strip())


def test_whatever_is_not_free_text_is_completed() -> None:
    typed = (click.Choice, click.Path, click.IntRange, click.FloatRange)
    silent = {
        name
        for name, each in parameters(cli)
        if not (isinstance(each, click.Option) and each.is_flag)
        and not isinstance(each.type, typed)
        and each._custom_shell_complete is None
        and each.make_metavar(click.Context(cli)) not in FREE
    }
    assert silent == NAMED_NOW


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("xpmem-emu get tasks --on p", ["p0", "p1", "p2"]),
        ("xpmem-emu get tasks --on p0,p", ["p0,p1", "p0,p2"]),
        ("xpmem-emu logs p2", ["p2"]),
        ("xpmem-emu remove 0x", ["{segid}"]),
        ("xpmem-emu --cluster foo logs p", []),
        ("xpmem-emu load ", ["{handle}", "{segid}"]),
        ("xpmem-emu detach ", ["{handle}"]),
        ("xpmem-emu describe p1", ["p1", "p1:7:1", "{handle}"]),
        ("xpmem-emu task kill ", ["p0:7:1", "p1:7:1"]),
        ("xpmem-emu task kill p1:7:1 --signal SIGK", ["SIGKILL"]),
        ("xpmem-emu release ", ["0x1070000100001"]),
        ("xpmem-emu task mprotect {handle} 4K r", ["r", "rw"]),
        ("xpmem-emu up --topology d", ["domains", "file,d"]),
        ("xpmem-emu up --image p", ["patient", "file,p"]),
        ("xpmem-emu run inflight", ["inflight-race", "file,inflight"]),
        ("xpmem-emu run chaos", ["file,chaos"]),
        ("xpmem-emu sim run chaos-k", ["chaos-kills", "file,chaos-k"]),
        ("xpmem-emu sim explore fence", ["fence-wake"]),
        ("xpmem-emu sim mutants --only no_d", ["no_dedup"]),
        ("xpmem-emu sim shrink --mutant no_d", ["no_dedup"]),
        ("xpmem-emu sim sh", ["shrink"]),
        ("xpmem-emu crash p0,", ["p0,p1", "p0,p2"]),
        ("xpmem-emu failpoint set p", ["p0:", "p1:", "p2:"]),
        ("xpmem-emu failpoint set p0,p1:mm", ["p0,p1:mm.gup.pin"]),
    ],
)
def test_the_shell_completes(
    complete: Complete, segid: str, handle: str, line: str, found: list[str]
) -> None:
    given = {"segid": segid, "handle": handle}
    assert complete(line.format(**given)) == [each.format(**given) for each in found]


def test_every_story_is_completed_for_run_and_every_other_scenario_for_sim(
    complete: Complete,
) -> None:
    stories = [story.name for story in shipped_stories()]
    assert complete("xpmem-emu run ") == [*stories, "file,"]
    swarms = [name for name in shipped_names("scenarios") if name not in stories]
    assert complete("xpmem-emu sim gate ") == [*swarms, "file,"]


def test_names_of_faults_that_are_in_force_are_completed(complete: Complete, shell: Shell) -> None:
    shell.ok("fault", "add", "hold --name slow")
    assert complete("xpmem-emu fault rm s") == complete("xpmem-emu release-held s") == ["slow"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("xpmem-emu fault add dr", ["drop"]),
        ("xpmem-emu fault add clock p1 ", ["jump", "skew", "freeze"]),
        ("xpmem-emu fault add 'link p0", ["link p0->p1", "link p0->p2"]),
        ("xpmem-emu fault add 'link p0->p1 de", ["link p0->p1 delay"]),
        ("xpmem-emu fault add 'link p0->p1 ", 14),
        ("xpmem-emu fault add 'delay 20ms --jit", ["delay 20ms --jitter"]),
        ("xpmem-emu fault add 'drop --match type=EV", ["drop --match type=EVICT"]),
        ("xpmem-emu fault add strain p0 pin", ["pin_limit"]),
        ("xpmem-emu fault add spl", ["split"]),
        ("xpmem-emu hold --match type=FAULT_R", ["type=FAULT_REPLY"]),
    ],
)
def test_the_grammar_of_faults_is_completed(
    complete: Complete, line: str, found: list[str] | int
) -> None:
    answer = complete(line, word="'" if "'" in line else "")
    assert (len(answer) if isinstance(found, int) else answer) == found


def test_a_link_outside_of_quotes_would_be_a_redirection() -> None:
    assert "p0->p1" in next_words(["link"], ["p0", "p1"])


def test_an_unquoted_link_is_not_offered(complete: Complete) -> None:
    assert complete("xpmem-emu fault add link p") == []


def test_bash_gets_the_piece_of_a_word_behind_its_last_break(
    complete: Complete, handle: str
) -> None:
    begun = handle[: handle.rindex(":") + 3]
    assert complete(f"xpmem-emu detach {begun}", begun.rpartition(":")[2], ":=>") == [
        handle.rpartition(":")[2]
    ]


def test_the_script_fills_in_the_answer_of_the_program(shell: Shell) -> None:
    script = shell.ok("completion", "bash")
    asked = f"""
    xpmem-emu() {{ printf 'plain,%s\\nplain,b c:\\n' "$COMP_LINE|$COMP_WORD"; }}
    {script}
    compopt() {{ echo opt; }}
    COMP_WORDS=(xpmem-emu detach p1 : 7) COMP_CWORD=4 COMP_LINE='xpmem-emu detach p1:7 x'
    COMP_POINT=21
    _xpmem_emu_completion xpmem-emu
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    told = subprocess.check_output(["bash", "-c", asked], text=True, timeout=60)
    assert told.splitlines() == ["opt", "xpmem-emu detach p1:7|7", "b c:"]
