"""Every remedy that is printed can be typed: each command in any text of the program is one that
the command line takes, and what is printed for a failure here is run."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from xpmem_emu.cli.main import cli
from xpmem_emu.cli.session import CommandSession

from .conftest import Shell

ROOT = Path(__file__).parents[2] / "xpmem_emu"
COMMAND = re.compile(r"\bxpmem-emu((?: [^\s;,`()]+)+)")
PLACEHOLDERS = {
    "P": "p0",
    "SIZE": "4K",
    "N": "1",
    "NAME": "n",
    "DIR": "keys",
    "FILE": "f.toml",
    "NAME|FILE": "pair",
    "HANDLE": "p0:7:1:0x1000",
    "GUEST_ADDRESS": "0x1000",
    "SCENARIO": "chaos",
}
FIELDS = {
    "segid": "0x10",
    "info.segid": "0x10",
    "handle": "p0:7:1:0x1000",
    "memory": "p0:7:1:0x1000",
    "target.task": "p0:7:1",
    "size": "4096",
    "capability": "use",
    "partid": "1",
    "home": "1",
    "fits": "64",
}
"""What stands for the fields of f-strings; anything else is a name, p0."""
NO_COMMANDS = {
    "the xpmem-emu command",
    "xpmem-emu panic",
    "xpmem-emu task kill",
    "xpmem-emu heart of p0",
    "install xpmem-emu again, complete",
    "xpmem-emu p0",
    "xpmem-emu --cluster p0 ",
}
"""Texts in which the name of the program stands for something else, or a command for any."""


def texts(path: Path, fields: dict[str, str]) -> Iterator[tuple[int, str]]:
    """The strings of a module, docstrings left out, with something in the place of each field."""
    tree = ast.parse(path.read_text())
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [
                fields.get(ast.unparse(part.value), "p0")
                if isinstance(part, ast.FormattedValue)
                else str(ast.literal_eval(part))
                for part in node.values
            ]
            yield node.lineno, "".join(parts)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside | told
        ):
            yield node.lineno, node.value


def taken(words: list[str]) -> None:
    """Raises click's UsageError unless the command line takes these words."""
    context = cli.make_context("xpmem-emu", list(words), obj=CommandSession())
    command: click.Command = cli
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            raise click.UsageError("no command")
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
        context = command.make_context(command.name, rest, parent=context)


def test_every_command_in_a_text_is_one_that_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPMEM_EMU_KEYS", "keys")
    wrong, seen = [], 0
    for path in sorted(ROOT.rglob("*.py")):
        names = FIELDS | ({"name": "far-remove"} if path.name == "exploring.py" else {})
        for line, text in texts(path, names):
            for match in COMMAND.finditer(text) if text not in NO_COMMANDS else ():
                words = [PLACEHOLDERS.get(word, word) for word in match[1].split()]
                seen += 1
                try:
                    taken(words)
                except (click.UsageError, AssertionError) as error:
                    wrong.append(f"{path.name}:{line}: xpmem-emu{match[1]}: {error}")
    assert wrong == [], "\n".join(wrong)
    assert seen > 50


@pytest.mark.parametrize(
    "failing",
    [
        ["cat", "0x1000000100001"],
        ["load", "p0:7:9:0x1000", "4"],
        ["task", "kill", "p0:7:9"],
        ["attach", "0x1000000100001", "--on", "p1"],
        ["fault", "rm", "nothing"],
        ["describe", "0x77"],
        ["release-held"],
        ["get", "segments", "--sort-by", "x", "--frob"],
        ["export", "empty", "--on", "p0"],
        ["sim", "run", "sharing", "--seed", "1"],
        ["sim", "explore", "inflight-race", "--replay", "2:drop"],
    ],
)
def test_what_is_printed_for_a_failure_runs_as_it_stands(
    shell: Shell, failing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    outcome = shell(*failing)
    assert outcome.code in (1, 64)
    remedy = outcome.err.rpartition("; try: ")[2]
    typed = [match[1].split() for match in COMMAND.finditer(f"{remedy} ")]
    assert typed, remedy
    for words in typed:
        if words[:2] == ["sim", "explore"]:
            taken(words)
            continue
        answer = shell(*words)
        assert answer.code in (0, 64), (words, answer.err)
        assert answer.code == 0 or "Missing option '--on'" in answer.err or words[0] == "export"


def test_a_dead_partition_is_booted_by_what_is_printed(shell: Shell) -> None:
    shell.emulator.silent = {"p1"}
    assert "; try: xpmem-emu reboot p1" in shell("task", "spawn", "--on", "p1").err
    assert "; try: xpmem-emu reboot p1" in shell("get", "tasks").err


@pytest.mark.parametrize(
    ("text", "typeable"),
    [
        ("xpmem-emu ps", "xpmem-emu --cluster lab ps"),
        ("next: xpmem-emu attach 0x1 --on P", "next: xpmem-emu --cluster lab attach 0x1 --on P"),
        (
            "`xpmem-emu get tasks`, or xpmem-emu down",
            "`xpmem-emu --cluster lab get tasks`, or xpmem-emu --cluster lab down",
        ),
        ("xpmem-emu --cluster x ps", "xpmem-emu --cluster x ps"),
        (
            "xpmem-emu down --cluster x, xpmem-emu up",
            "xpmem-emu down --cluster x, xpmem-emu --cluster lab up",
        ),
        ("xpmem-emu keys ls; xpmem-emu run --list", "xpmem-emu keys ls; xpmem-emu run --list"),
        ("xpmem-emu sim replay x, xpmem-emu demo", "xpmem-emu sim replay x, xpmem-emu demo"),
    ],
)
def test_remedies_and_hints_are_about_the_same_cluster(text: str, typeable: str) -> None:
    assert CommandSession(cluster="lab").typeable(text) == typeable
    assert CommandSession().typeable(text) == text


def test_the_line_of_a_failure_names_the_cluster(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(shell.emulator), "partitions", lambda *_: {"p0": 0})
    outcome = shell("--cluster", "lab", "task", "kill", "p0:7:9")
    assert outcome.err.endswith("; try: xpmem-emu --cluster lab task ls\n")
    hint = shell("export", "--size", "4K", "--on", "p0", "--cluster", "lab").err
    assert "next: xpmem-emu --cluster lab attach 0x" in hint
