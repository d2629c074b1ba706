"""The kinds of click commands that all commands here are, with the options that all of them have.

The common options may stand before or after the command's name; the last one wins. The session
learns the name of the command that runs, for its errors.
"""

import re
from collections.abc import Callable, Sequence

import click

from xpmem_emu.cli.session import Session
from xpmem_emu.live.paths import CLUSTER_VARIABLE


def _stores(attribute: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def store(context: click.Context, _option: click.Parameter, value: object) -> None:
        session = context.find_object(Session)
        if session is not None and value not in (None, 0, False):
            setattr(session, attribute, value)

    return store


def _common_options(environment: str | None) -> list[click.Parameter]:
    return [
        click.Option(
            ["--cluster"], metavar="NAME", envvar=environment, expose_value=False,
            callback=_stores("cluster"), help=f"Which cluster; or set {CLUSTER_VARIABLE}.",
        ),
        click.Option(
            ["-q", "--quiet", "verbosity"], flag_value=-1, type=int, expose_value=False,
            default=None, callback=_stores("verbosity"), help="No talk, only data and errors.",
        ),
        click.Option(
            ["-v", "--verbose", "verbosity"], flag_value=1, type=int, expose_value=False,
            default=None, callback=_stores("verbosity"), help="Tell each step.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_stores("debug"),
            help="Show the traceback of an error.",
        ),
    ]  # fmt: skip


class Command(click.Command):
    """A command with the common options; the session learns its name when it runs."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self.params += _common_options(environment=None)

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command under its full name."""
        session = ctx.find_object(Session)
        if session is not None:
            session.command = ctx.command_path.partition(" ")[2]
        return super().invoke(ctx)


class Group(click.Group):
    """A group of commands; alone on the command line it shows its help."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click; no arguments mean --help."""
        if not args and not ctx.resilient_parsing:
            args = ["--help"]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click, which would cut what a command does in the middle of a phrase."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _gist(self.commands[name])) for name in self.commands])


class Root(Group):
    """The command itself: the common options, and help in the order of work."""

    sections: dict[str, list[str]]

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self.params += _common_options(environment=CLUSTER_VARIABLE)
        self.sections = {}

    def add_section(self, name: str, commands: Sequence[click.Command]) -> None:
        """Adds commands under a heading of the help."""
        self.sections[name] = [command.name or "" for command in commands]
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        for section, names in self.sections.items():
            with formatter.section(section):
                formatter.write_dl([(name, _gist(self.commands[name])) for name in names])


def _gist(command: click.Command) -> str:
    """The first clause of a command's help."""
    return re.split(r"[;:.]\s", command.help or "", maxsplit=1)[0].rstrip(".")
