"""Every command of README and docs/ does what the page shows, typed by somebody who has nothing
but the command."""

import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from xpmem_emu.cli.main import cli
from xpmem_emu.cluster.paths import arena_place
from xpmem_emu.inject.grammar import parse_injection

from .exceptions import AFTER, ANY_ORDER, BEFORE, CODES, NOT_RUN, ON_CONTAINERS, PROGRESS, SMALLER
from .pages import PAGES, ROOT, Shown, commands, mentions
from .shell import Said, environment, kept, missing, typed

ALL = [one for page in PAGES for one in commands(page)]
_PROGRAM = re.compile(r"xpmem-emu ((?:'[^']*'|[^|;)'])*)")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with the files that the pages speak of."""
    with tempfile.TemporaryDirectory(prefix="xe") as folder:
        path = Path(folder)
        (path / "big.bin").write_bytes(b"0123456789abcdef" * (4 << 20))
        (path / "python3.11").write_bytes(b"0123456789abcdef" * 426983 + b"01234567")
        example = (ROOT / "docs" / "scenarios.md").read_text().partition("```toml\n")[2]
        (path / "mine.toml").write_text(example.partition("```")[0])
        (path / "hosts.toml").write_text("".join(map(_host, range(2))))
        yield path


def _host(partid: int) -> str:
    ports = [_free_port(), _free_port()]
    return (
        f'[[partition]]\nname = "p{partid}"\npartid = {partid}\ndomain = "{partid}"\n'
        f'image = "patient"\nendpoint = "tcp://127.0.0.1:{ports[0]}"\n'
        f'console = "tcp://127.0.0.1:{ports[1]}"\n'
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def env(home: Path) -> Iterator[dict[str, str]]:
    """The environment, and nothing of a cluster in it at the end."""
    arenas = Path(tempfile.mkdtemp(prefix="xe", dir=arena_place()))
    made = environment(home, arenas)
    yield made
    typed(
        [f"xpmem-emu --cluster {one.name} down" for one in home.glob("run/xpmem-emu/*")], home, made
    )
    shutil.rmtree(arenas)


def _is_run(one: Shown) -> bool:
    return one.command not in NOT_RUN and one.page != ON_CONTAINERS


@pytest.mark.live
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(map(_is_run, commands(page)))],
    ids=lambda page: page.stem,
)
def test_commands_do_what_the_page_shows(page: Path, home: Path, env: dict[str, str]) -> None:
    shown = [one for one in commands(page) if _is_run(one)]
    before, after = BEFORE.get(page.name, []), AFTER.get(page.name, [])
    lines = [_as_run(one, shown[:at]) for at, one in enumerate(shown)]
    said = typed([*before, *lines, *after], home, env)
    assert len(said) == len(before) + len(lines) + len(after), said[-1]
    told = said[len(before) : len(before) + len(lines)]
    wrong = [
        text
        for one, line, each in zip(shown, lines, told, strict=True)
        for text in _differences(one, line, each)
    ]
    assert "\n".join(wrong) == ""
    assert [each for each in said if each not in told and each.code] == []
    assert kept(env) == []


def _as_run(one: Shown, before: list[Shown]) -> str:
    """The command that is run; of what is made smaller once is enough."""
    again = one.command in SMALLER and any(each.command == one.command for each in before)
    return "true" if again else SMALLER.get(one.command, one.command)


def _differences(shown: Shown, line: str, said: Said) -> Iterator[str]:
    """How what was said differs from what is shown."""
    refused = any(each.startswith("error:") for each in shown.output)
    expected = CODES.get(line, 1 if refused else 0)
    if said.code != expected:
        yield f"{shown.place}\n  ends with {said.code}, not {expected}: {said.lines[-5:]}"
    if shown.output:
        lines = [each for each in said.lines if not re.fullmatch(PROGRESS, each)]
        for each in missing(shown.output, lines, line not in ANY_ORDER):
            yield f"{shown.place}\n  {each}\n  among {said.lines}"


def test_there_is_no_exception_for_a_command_that_no_page_shows() -> None:
    listed = {one.command for one in ALL}
    assert {*NOT_RUN, *SMALLER} - listed == set()


@pytest.mark.parametrize(
    "one",
    [one for one in ALL if not _is_run(one)]
    + [one for page in PAGES for one in mentions(page, list(cli.commands))]
    + [one for one in ALL if one.command in SMALLER],
    ids=lambda one: one.place,
)
def test_commands_that_are_not_run_as_shown_have_names_and_options_that_there_are(
    one: Shown,
) -> None:
    # A command inside of another one's quotes is one of its own.
    for text in _PROGRAM.findall(one.command.replace('"', "")):
        assert _unknown(shlex.split(text.partition("$(")[0])) == ""
    if one.command.startswith("make "):
        subprocess.run(
            ["make", "-n", *one.command.split()[1:]],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )


def _unknown(words: list[str]) -> str:
    """The first word that is no command or option where it stands; empty: there is none."""
    command: click.Command = cli
    options = _options(cli)
    left = iter(words)
    for word in left:
        if command.context_settings.get("ignore_unknown_options"):
            return _no_fault(command, [word, *left])
        if word.startswith("-"):
            if word not in options:
                return word
            if options[word]:
                next(left, None)
        elif isinstance(command, click.Group) and not (word.isupper() or word == "..."):
            if word not in command.commands:
                return word
            command = command.commands[word]
            options |= _options(command)
    return ""


def _no_fault(command: click.Command, words: list[str]) -> str:
    """Why the words of `fault add` or `hold` are no fault; empty: they are one."""
    hold = ["link", words[0], "hold", *words[1:]] if command.name == "hold" else words
    try:
        parse_injection(" ".join(hold))
    except ValueError as error:
        return str(error)
    return ""


def _options(command: click.Command) -> dict[str, bool]:
    """Each option, and whether it has a value."""
    given = [each for each in command.params if isinstance(each, click.Option)]
    return {"--help": False} | {name: not each.is_flag for each in given for name in each.opts}


# -- what would be seen ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "said", "lost"),
    [
        (["p0 up in 1.2 s", "0x12 p1"], ["p0 up in 33 ms", "0xabc  p1"], []),
        (["p0 up"], ["p1 up"], ["p0 up", "p1 up (was not expected)"]),
        (["8 pages"], ["9 pages"], ["8 pages", "9 pages (was not expected)"]),
        (["a", "b"], ["b", "a"], ["b (was not expected before a)", "b"]),
        (["a", "..."], ["a", "b", "c"], []),
        (["...", "c"], ["a", "b"], ["c"]),
        (["error: ..."], ["error: it is so"], []),
    ],
)
def test_what_is_said_is_compared_with_what_is_shown(
    shown: list[str], said: list[str], lost: list[str]
) -> None:
    assert missing(shown, said) == lost


def test_a_command_that_does_not_do_what_is_shown_is_told(home: Path, env: dict[str, str]) -> None:
    [refused] = typed(["xpmem-emu frobnicate"], home, env)
    [told] = _differences(Shown("page.md", 1, "xpmem-emu frobnicate"), "", refused)
    assert "ends with 64, not 0" in told


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("sim run chaos --seeds 0..9 --jobs 2", ""),
        ("sim run --sedes 0..9", "--sedes"),
        ("-o json up", "-o"),
        ("fault add link p0->p1 drop", ""),
        ("fault add link p0->p1 delay", "write it like `delay TIME`, not `delay`"),
        ("--cluster c upp", "upp"),
        ("task spwan", "spwan"),
    ],
)
def test_a_name_or_option_that_there_is_not_is_told(line: str, unknown: str) -> None:
    assert _unknown(line.split()) == unknown
