"""The kinds of click commands that all commands here are, with the options that all of them have.

The common options may stand before or after the command's name; the last one wins. The session
learns the name of the command that runs, for its errors.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from xpmem_emu.cli.session import CommandSession
from xpmem_emu.cluster.paths import CLUSTER_VARIABLE, run_root


def _stores(attribute: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def store(context: click.Context, _option: click.Parameter, value: object) -> None:
        session = context.find_object(CommandSession)
        if session is not None and value not in (None, 0, False):
            setattr(session, attribute, value)

    return store


def _clusters(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    """Names of this user's clusters on this host."""
    return sorted(each.name for each in run_root().glob("*") if each.name.startswith(begun))


def _common_options(environment: str | None) -> list[click.Parameter]:
    return [
        click.Option(
            ["--cluster"],
            metavar="NAME",
            envvar=environment,
            expose_value=False,
            callback=_stores("cluster"),
            shell_complete=_clusters,
            help=f"Which cluster; or set {CLUSTER_VARIABLE}.",
        ),
        click.Option(
            ["-q", "--quiet", "verbosity"],
            flag_value=-1,
            type=int,
            expose_value=False,
            default=None,
            callback=_stores("verbosity"),
            help="No talk, only data and errors.",
        ),
        click.Option(
            ["-v", "--verbose", "verbosity"],
            flag_value=1,
            type=int,
            expose_value=False,
            default=None,
            callback=_stores("verbosity"),
            help="Tell each step.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_stores("debug"),
            help="Show the traceback of an error.",
        ),
    ]


class Command(click.Command):
    """A command with the common options; the session learns its name when it runs."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self.params += _common_options(environment=None)

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command under its full name."""
        session = ctx.find_object(CommandSession)
        if session is not None:
            session.command = ctx.command_path.partition(" ")[2]
        return super().invoke(ctx)


class Group(click.Group):
    """A group of commands; alone on the command line it shows its help."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but no arguments mean --help."""
        if not args and not ctx.resilient_parsing:
            args = ["--help"]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In whole sentences: click would cut what a command does in the middle of a phrase."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, gist_of(self.commands[name])) for name in self.commands])


class LazyCommands(dict[str, click.Command]):
    """Commands by name, each imported when it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._homes: dict[str, str] = {}

    def add(self, name: str, home: str) -> None:
        """A command and where it is, such as `cluster.up`."""
        self._homes[name] = home

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __missing__(self, name: str) -> click.Command:
        module, _, attribute = self._homes[name].rpartition(".")
        found = getattr(import_module(f"xpmem_emu.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        self[name] = found
        return found

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._homes else default

    def values(self) -> Any:
        return [self[name] for name in self._homes]

    def items(self) -> Any:
        return [(name, self[name]) for name in self._homes]


class Sections(Group):
    """A group whose commands are imported when they are used, with help in the order of work."""

    sections: dict[str, dict[str, str]]
    """The first clause of each command's help, by heading and name."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self.sections = {}
        self.commands: LazyCommands = LazyCommands()

    def add_section(self, heading: str, commands: Mapping[str, tuple[str, str]]) -> None:
        """Adds commands under a heading of the help: by name where each is, and its gist."""
        self.sections[heading] = {name: gist for name, (_, gist) in commands.items()}
        for name, (home, _) in commands.items():
            self.commands.add(name, home)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, gists in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl(list(gists.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From names alone: click would import every command for its help."""
        gists = {name: gist for each in self.sections.values() for name, gist in each.items()}
        found = [
            CompletionItem(name, help=gist)
            for name, gist in sorted(gists.items())
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


class Root(Sections):
    """The command itself, with the common options."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)
        self.params += _common_options(environment=CLUSTER_VARIABLE)


def gist_of(command: click.Command) -> str:
    """The first clause of a command's help."""
    return re.split(r"[;:.]\s", command.help or "", maxsplit=1)[0].rstrip(".")
