"""Arguments and options that several commands take, each declared once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

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
RUNS = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where result bundles go.",
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


def shipped_option(
    kind: str, text: str, *, default: str | None = None, required: bool = False
) -> Callable[[_F], _F]:
    """The option --`kind` for what is shipped, by its name, or a file of one's own."""
    kinds = {"image": "images", "topology": "topologies"}
    # A default of None is a value to click, and whoever must say one need not then.
    chosen: dict[str, Any] = {} if default is None else {"default": default, "show_default": True}
    return click.option(
        f"--{kind}",
        **chosen,
        required=required,
        metavar="NAME|FILE",
        shell_complete=completion.shipped(kinds[kind]),
        help=text,
    )
