"""Arguments and options that several commands take, each declared once."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from xpmem_emu.cli import completion, parameters
from xpmem_emu.cluster.paths import KEYS_VARIABLE

_F = TypeVar("_F", bound=Callable[..., object])

PARTITION = click.argument(
    "where",
    type=parameters.parse_partition,
    metavar="P",
    shell_complete=completion.complete_partitions,
)
HANDLE = click.argument(
    "handle",
    type=parameters.handle,
    metavar="HANDLE[+OFFSET]",
    shell_complete=completion.objects("handles"),
)
MEMORY = click.argument(
    "memory",
    type=parameters.memory,
    metavar="HANDLE|SEGID[+OFFSET]",
    shell_complete=completion.objects("handles", "segids"),
)
TASK_PARAM = click.argument(
    "ref",
    type=parameters.parse_task,
    metavar="P:BOOT:PID",
    shell_complete=completion.objects("tasks"),
)
SIZE = click.argument("size", type=parameters.size, metavar="SIZE")
FILE = click.argument("file", metavar="FILE", shell_complete=completion.objects("files"))
SEGID = click.argument(
    "segid", type=parameters.ident, metavar="SEGID", shell_complete=completion.segids
)
ON_SEVERAL = click.option(
    "--on",
    "where",
    type=parameters.parse_partitions,
    default=None,
    metavar="P,...",
    shell_complete=completion.several,
    help="Only these partitions, as in p0-3,p5.",
)

JOBS = click.option(
    "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes to run on."
)
KEYS = click.option(
    "--keys",
    "folder",
    type=click.Path(path_type=Path),
    envvar=KEYS_VARIABLE,
    required=True,
    metavar="DIR",
    help=f"The folder of the keys; or set {KEYS_VARIABLE}.",
)
GUARD = click.option(
    "--keys",
    type=click.Path(path_type=Path),
    envvar=KEYS_VARIABLE,
    metavar="DIR",
    help=f"The folder of the keys that guard tcp endpoints; or set {KEYS_VARIABLE}.",
)
INSECURE = click.option(
    "--insecure",
    is_flag=True,
    help="Let tcp endpoints be without keys: whoever reaches them can do everything.",
)


def on(text: str, *, required: bool = False) -> Callable[[_F], _F]:
    """The option --on for one partition, with its help."""
    return click.option(
        "--on",
        "where",
        type=parameters.parse_partition,
        metavar="P",
        required=required,
        shell_complete=completion.complete_partitions,
        help=text,
    )
