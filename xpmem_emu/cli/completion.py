"""Shell completion: the script to source, and what can be completed from a running cluster.

Completion must never be in the way: it gives up silently when no cluster answers.
"""

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, suppress

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.session import CommandSession
from xpmem_emu.cluster.paths import KEYS_VARIABLE
from xpmem_emu.errors import KernelError
from xpmem_emu.shipped import shipped_folder, shipped_names

PROGRAM = "xpmem-emu"
COMPLETION_VARIABLE = "_XPMEM_EMU_COMPLETE"

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORD="${COMP_WORDS[COMP_CWORD]}" \\
        COMP_WORDBREAKS="$COMP_WORDBREAKS" %(complete_var)s=bash_complete "$1" 2>/dev/null)
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == file ]]; then
            compopt -o default
        else
            COMPREPLY+=("$value")
            [[ $value == *[=:,] ]] && compopt -o nospace
        fi
    done
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class WholeWords(BashComplete):
    """Completion for bash of words as the command gets them.

    bash breaks words at `:`, `=` and `>` as well, which names of tasks and memory are full of, and
    puts its answer where the last such piece begins.
    """

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        # Blanks inside of a quote that is open belong to the last word.
        begun = words.pop() if not line[-1:].isspace() or line.endswith(words[-1]) else ""
        quoted = os.environ["COMP_WORD"][:1] in ("'", '"')
        breaks = "" if quoted else os.environ["COMP_WORDBREAKS"]
        self._kept = max((begun.rfind(each) + 1 for each in breaks), default=0)
        return words[1:], begun

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value[self._kept :]}"


add_completion_class(WholeWords)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script: eval "$(xpmem-emu completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root().command
    click.echo(kind(root, {}, PROGRAM, COMPLETION_VARIABLE).source())


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_Words = Iterable[str | tuple[str, str]]
"""Words, or words and what each of them is."""


def completer(known: Callable[[CommandSession, click.Context, str], _Words]) -> Completer:
    """Completes one of the words that `known` gives; none when it fails, without a word."""

    def complete(
        context: click.Context, _parameter: click.Parameter, begun: str
    ) -> list[CompletionItem]:
        session = context.find_object(CommandSession)
        assert session is not None
        found: list[CompletionItem] = []
        with suppress(OSError, KernelError, CommandFailed), redirect_stderr(io.StringIO()):
            for each in known(session, context, begun):
                word, gist = (each, None) if isinstance(each, str) else each
                if word.startswith(begun):
                    found.append(CompletionItem(word, help=gist))
        return found

    return complete


def words(known: Iterable[str]) -> Completer:
    """Completes one of these words."""
    return completer(lambda _session, _context, _begun: known)


def with_files(complete: Completer) -> Completer:
    """Completes what `complete` does, and names of files."""

    def both(
        context: click.Context, parameter: click.Parameter, begun: str
    ) -> list[CompletionItem]:
        return [*complete(context, parameter, begun), CompletionItem(begun, type="file")]

    return both


complete_files = with_files(words(()))


# -- what ships --------------------------------------------------------------------------------


def shipped(kind: str) -> Completer:
    """Completes a shipped file of that kind, or the path of another one."""
    return with_files(completer(lambda _session, _context, _begun: shipped_names(kind)))


def _scenarios(told: bool) -> Iterator[str]:
    # Not asked of who reads them: that would import the simulator.
    folder = shipped_folder("scenarios")
    for name in shipped_names("scenarios"):
        if ("\n[story]\n" in (folder / f"{name}.toml").read_text()) is told:
            yield name


stories = with_files(completer(lambda _session, _context, _begun: _scenarios(told=True)))
swarms = with_files(completer(lambda _session, _context, _begun: _scenarios(told=False)))


# -- what a running cluster has ----------------------------------------------------------------


def _rows(session: CommandSession, kind: str, field: str) -> Iterator[tuple[str, str]]:
    from xpmem_emu.cli.survey import rows_of

    for row in rows_of(session, kind, None):
        value = row[field]
        word = f"{value:#x}" if isinstance(value, int) else str(value)
        gist = f"of {row.get('partition', 'the cluster')}"
        if word:
            yield word, gist


_OBJECTS = {
    "segids": ("segments", "segid"),
    "segment names": ("segments", "name"),
    "handles": ("attachments", "handle"),
    "apids": ("permits", "apid"),
    "tasks": ("tasks", "task"),
    "faults": ("faults", "name"),
    "files": ("files", "name"),
}


def objects(*kinds: str) -> Completer:
    """Completes names of objects of these kinds, one of _OBJECTS each."""

    def known(session: CommandSession, _context: click.Context, _begun: str) -> _Words:
        for kind in kinds:
            yield from _rows(session, *_OBJECTS[kind])

    return completer(known)


complete_partitions = completer(lambda session, _context, _begun: session.names.partids)
segids = objects("segids")
complete_segments = objects("segids", "segment names")
handles_or_files = with_files(objects("handles"))
memory_or_files = with_files(objects("handles", "segids"))


def _listed(session: CommandSession, _context: click.Context, begun: str) -> _Words:
    before = begun.rpartition(",")[0]
    chosen = before.split(",") if before else []
    left = [each for each in session.names.partids if each not in chosen]
    return [",".join([*chosen, each]) for each in left]


several = completer(_listed)
"""Completes the last one of several partitions, as in p0,p2."""
_named = objects("segids", "apids", "tasks", "handles")


def anything(
    context: click.Context, parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Partitions, and objects of every kind that has a name."""
    return complete_partitions(context, parameter, begun) + _named(context, parameter, begun)


def _points(session: CommandSession, _context: click.Context, begun: str) -> _Words:
    where, colon, _ = begun.partition(":")
    if not colon:
        return [f"{each}:" for each in session.names.partids]
    with session.connect(where.split(",")[0]) as partition:
        return [(f"{where}:{row['point']}", str(row["gist"])) for row in partition.failpoints()]


points = completer(_points)
"""Completes a failpoint: the partition, then the point."""


def key_names(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Names of the keys that are let in, in the folder that the environment names."""
    from xpmem_emu.cluster.keys import KeyFolder

    with suppress(OSError, KernelError):
        keys = KeyFolder(os.environ.get(KEYS_VARIABLE, "")).read().keys
        return [CompletionItem(key.name) for key in keys if key.name.startswith(begun)]
    return []
