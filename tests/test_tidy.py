"""The house rules that a machine can check, checked. See docs/ for why each of them exists."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import click
import pytest

from xpmem_emu.cli.main import cli
from xpmem_emu.docs.draw import DRAWN
from xpmem_emu.sim.mutations.table import MUTANTS

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for folder in ("xpmem_emu", "tests", "bench")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
MODULES = [path for path in SOURCES if path.is_relative_to(ROOT / "xpmem_emu")]
TESTS = [path for path in SOURCES if path.is_relative_to(ROOT / "tests")]

TOOLS = ROOT / "tests" / "tools.py"

TOP_LEVEL = {
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "docker-compose.yml",
    "pyproject.toml",
}
FILE_LINES = 400
FUNCTION_LINES = 60
COLUMNS = 100
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
VAGUE = re.compile(
    r"\b(?:blazing(?:ly)?|seamless(?:ly)?|leverag(?:e|es|ing)|cutting-edge"
    r"|world-class|effortless(?:ly)?)\b",
    re.IGNORECASE,
)
COMMAND = re.compile(r"\b(?:command|group)\(")
_BACKENDS = "one verb, for clusters of processes and for those of containers"
_CLIENT = "what the client library calls by the name that the kernel has for it"
ONE_THING = {
    **dict.fromkeys(
        ("boot", "clean", "crash", "down", "hang", "ps", "reboot", "resume"), _BACKENDS
    ),
    "up": _BACKENDS,
    "Partition": _CLIENT,
    "Task": _CLIENT,
    "EXPERIMENT": "what each file of the laboratory's experiments declares",
    "HANDLERS": "what serves calls: of one subject, and of all",
    "JUDGE": "a judge that needs no module of its own but its work, beside that",
    "main": "each program begins there",
}
"""Names that are defined in several modules, and what that one thing is."""
KERNEL_SIDE = ("sched", "failpoints", "mm", "xpc", "xpmem", "kernel", "inject")
OUTSIDE_WORLD = {"zmq", "asyncio", "uvloop", "time", "random", "socket", "secrets", "threading"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Seen = Defined | ast.Import | ast.ImportFrom | ast.Call


@cache
def nodes(path: Path) -> list[Seen]:
    """What the rules are about, of all that is in a file: gone through once."""
    return [node for node in ast.walk(tree(path)) if isinstance(node, Seen)]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from commands(each, f"{path} {each.name}")


def test_the_search_for_sources_finds_them() -> None:
    assert len(MODULES) > 20
    assert len(TESTS) > 5


def test_the_top_level_holds_what_belongs_there() -> None:
    """What a command made in the working folder must not slip into a commit."""
    ignored = [".git", *(ROOT / ".gitignore").read_text().split()]  # a worktree has it as a file
    found = {
        path.name
        for path in ROOT.iterdir()
        if path.is_file() and not any(fnmatch(path.name, one.strip("/")) for one in ignored)
    }
    assert found == TOP_LEVEL


def test_files_stay_short() -> None:
    long = {name(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: count for path, count in long.items() if count > FILE_LINES} == {}


def defined(path: Path) -> Iterator[str]:
    """The public names of a module, its commands aside: those are called as people type them."""
    for node in tree(path).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if not any(COMMAND.search(ast.unparse(each)) for each in node.decorator_list):
                    yield node.name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def test_no_name_means_two_things() -> None:
    places = defaultdict(set)
    for path in MODULES:
        for each in defined(path):
            if not each.startswith("_"):
                places[each].add(name(path))
    twice = {each for each, paths in places.items() if len(paths) > 1}
    assert {each: sorted(places[each]) for each in twice - set(ONE_THING)} == {}
    assert set(ONE_THING) - twice == set()


def test_every_way_to_break_the_kernel_is_in_the_table_of_mutants() -> None:
    """They are found by name alone, so nobody else would miss one."""
    folder = ROOT / "xpmem_emu" / "sim" / "mutations"
    ways = {
        (".".join(path.relative_to(folder).with_suffix("").parts), each)
        for path in folder.rglob("*.py")
        if path.stem not in ("mutant", "patches", "slip", "table")
        for each in defined(path)
        if not each.startswith("_")
    }
    assert ways == {(each.home, each.name) for each in MUTANTS.values()}


def test_functions_stay_short() -> None:
    long = {
        f"{name(path)}:{each.lineno} {each.name}": length
        for path in SOURCES
        for each in functions(path)
        if (length := (each.end_lineno or each.lineno) - each.lineno + 1) > FUNCTION_LINES
    }
    assert long == {}


def test_lines_fit_in_100_columns() -> None:
    wide = [
        f"{name(path)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert wide == []


@pytest.mark.parametrize("words", [UNFINISHED, VAGUE], ids=["unfinished", "vague"])
def test_nothing_is_left_for_later_and_nothing_is_sold(words: re.Pattern[str]) -> None:
    texts = [*SOURCES, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "Makefile"]
    found = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in texts
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert found == []


def test_every_module_begins_with_its_design_note() -> None:
    bare = [
        name(path)
        for path in MODULES
        if path.read_text().strip() and ast.get_docstring(tree(path)) is None
    ]
    assert bare == []


def test_the_kernel_side_never_touches_the_outside_world() -> None:
    kernel = [path for each in KERNEL_SIDE for path in (ROOT / "xpmem_emu" / each).rglob("*.py")]
    assert {path.relative_to(ROOT).parts[1] for path in kernel} == set(KERNEL_SIDE)
    guilty = {name(path): found for path in kernel if (found := imported(path) & OUTSIDE_WORLD)}
    assert guilty == {}


def sleeps(node: Seen) -> bool:
    """Whether this calls time.sleep, or gets at it under another name. `let_pass` in the loops of
    tests/live is the one place for time that has to pass."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "time" and any(alias.name == "sleep" for alias in node.names)
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    if called == "asyncio.sleep":
        return ast.unparse(node) != "asyncio.sleep(0)"
    return called in ("time.sleep", "threading.Event().wait")


def test_tests_never_sleep_to_wait_for_something() -> None:
    sleepers = [
        f"{name(path)}:{node.lineno}" for path in TESTS for node in nodes(path) if sleeps(node)
    ]
    assert [one.partition(":")[0] for one in sleepers] == ["tests/live/loops.py"]


def test_tests_are_never_skipped() -> None:
    marks = re.compile(r"pytest\.(?:mark\.)?(?:skip|skipif|xfail|importorskip)\b")
    skipped = [
        name(path)
        for path in TESTS
        if path not in (Path(__file__), TOOLS) and marks.search(path.read_text())
    ]
    assert skipped == []


def test_every_command_and_option_says_what_it_does() -> None:
    silent = []
    for path, command in commands(cli, "xpmem-emu"):
        if not command.help:
            silent.append(path)
        silent += [
            f"{path} {option.opts[-1]}"
            for option in command.params
            if isinstance(option, click.Option) and not option.help
        ]
    assert silent == []


@pytest.mark.parametrize("name", DRAWN)
def test_what_a_page_shows_of_the_code_is_so(name: str) -> None:
    page = (ROOT / name).read_text()
    assert page == DRAWN[name](page), "make docs draws it again"


def test_every_command_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "cli.md").read_text()
    missing = [
        path
        for path, command in commands(cli, "xpmem-emu")
        if not isinstance(command, click.Group)
        and f"`{path.removeprefix('xpmem-emu ')}" not in reference
    ]
    assert missing == []


def test_a_docstring_says_something_itself() -> None:
    """What is known where the method is declared need not be repeated; "See X" is no word of it."""
    empty = [
        f"{name(path)}:{node.lineno}"
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, Defined)
        and re.fullmatch(r"See [\w.`]+( \w+)?\.", ast.get_docstring(node) or "")
    ]
    assert empty == []
