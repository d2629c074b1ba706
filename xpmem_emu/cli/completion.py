"""Shell completion: the script to source, and what can be completed from a running cluster.

Completion must never be in the way: it gives up silently when no cluster answers.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress

import click
from click.shell_completion import CompletionItem, get_completion_class

from xpmem_emu.cli.commands import Command
from xpmem_emu.cli.failure import CommandFailed
from xpmem_emu.cli.session import Session
from xpmem_emu.errors import KernelError
from xpmem_emu.live.paths import KEYS_VARIABLE

PROGRAM = "xpmem-emu"
COMPLETION_VARIABLE = "_XPMEM_EMU_COMPLETE"


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


def words(known: Iterable[str]) -> Completer:
    """Completes one of these words."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, begun: str
    ) -> list[CompletionItem]:
        return [CompletionItem(word) for word in known if word.startswith(begun)]

    return complete


def partitions(
    context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Names of the cluster's partitions that begin like this."""
    session = context.find_object(Session)
    assert session is not None
    with suppress(OSError, KernelError):
        return [CompletionItem(each) for each in session.names.partids if each.startswith(begun)]
    return []


def segids(
    context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Segments of all partitions whose segid begins like this."""
    session = context.find_object(Session)
    assert session is not None
    found = []
    with suppress(OSError, KernelError, CommandFailed):
        for name, partition in session.survey():
            for row in partition.look("segments"):
                found.append(CompletionItem(f"{row['segid']:#x}", help=f"of {name}"))
    return [item for item in found if item.value.startswith(begun)]


def key_names(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Names of the keys that are let in, in the folder that the environment names."""
    from xpmem_emu.live.keys import KeyFolder

    with suppress(OSError, KernelError):
        keys = KeyFolder(os.environ.get(KEYS_VARIABLE, "")).read().keys
        return [CompletionItem(key.name) for key in keys if key.name.startswith(begun)]
    return []
