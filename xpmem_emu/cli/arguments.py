"""Arguments and options that several commands take, each declared once."""

from collections.abc import Callable
from typing import TypeVar

import click

from xpmem_emu.cli import completion, parameters

F = TypeVar("F", bound=Callable[..., object])

PARTITION = click.argument(
    "where", type=parameters.partition, metavar="P", shell_complete=completion.partitions
)
HANDLE = click.argument("handle", type=parameters.handle, metavar="HANDLE[+OFFSET]")
TASK = click.argument("ref", type=parameters.task, metavar="P:PID")
SIZE = click.argument("size", type=parameters.size, metavar="SIZE")
FILE = click.argument("file", metavar="FILE")
SEGID = click.argument(
    "segid", type=parameters.ident, metavar="SEGID", shell_complete=completion.segids
)
ON_SEVERAL = click.option(
    "--on", "where", type=parameters.partitions, default=None, metavar="P,...",
    shell_complete=completion.partitions, help="Only these partitions, as in p0-3,p5.",
)  # fmt: skip


def on(text: str, *, required: bool = False) -> Callable[[F], F]:
    """The option --on for one partition, with its help."""
    return click.option(
        "--on", "where", type=parameters.partition, metavar="P", required=required,
        shell_complete=completion.partitions, help=text,
    )  # fmt: skip
