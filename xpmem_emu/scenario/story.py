"""A scenario file: its header, its cluster, and its phases as steps.

`read_story` refuses everything that it can refuse before a partition exists: an unknown key, a
word that is no call, a name that nothing makes. Each refusal is one KernelError with the file, the
key or line, the cause and what would be right.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from xpmem_emu import toml
from xpmem_emu.errors import KernelError
from xpmem_emu.image import Image, ImageError, convert_image
from xpmem_emu.scenario.lexer import ScenarioError, near
from xpmem_emu.scenario.step_syntax import Do, Step, names_used, partitions_used, read_action
from xpmem_emu.shipped import find_toml, shipped_folder
from xpmem_emu.text import LINE
from xpmem_emu.units import parse_time

PHASES = ("setup", "load", "faults", "heal", "final", "check")
"""In their order; `faults` go on beside `load`."""
SEE_FORMAT = "docs/scenarios.md has the format"
_SWARM = "swarm"

Tree = dict[str, Any]
DomainName = Annotated[str, Meta(min_length=1, max_length=64)]


class ClusterPart(Struct, frozen=True, forbid_unknown_fields=True):
    """The `[cluster]` table. `memory` is that of each partition, and its swap; `override` has the
    keys of an image that are different here."""

    partitions: Annotated[int, Meta(ge=1, le=16)] = 2
    image: Annotated[str, Meta(min_length=1)] = "patient"
    memory: str = "16M"
    domains: Annotated[list[DomainName], Meta(max_length=16)] = []
    """The coherence domain of each partition; empty: the image's for all."""
    patience: str = "30s"
    override: Tree = {}


class Phases(Struct, frozen=True, forbid_unknown_fields=True):
    """The `[story]` table: the text of each phase."""

    setup: str = ""
    load: str = ""
    faults: str = ""
    heal: str = ""
    final: str = ""
    check: str = ""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
    title: Annotated[str, Meta(min_length=1, max_length=120, pattern=LINE)]
    shows: Annotated[str, Meta(max_length=120)]
    story: Phases
    cluster: ClusterPart = ClusterPart()


@dataclass(frozen=True, slots=True)
class Story:
    """A scenario that can be run. `image` is complete, with its overrides in it."""

    name: str
    title: str
    shows: str
    path: Path
    partitions: tuple[str, ...]
    domains: tuple[str, ...]
    """The coherence domain of each partition."""
    image: Image
    patience_ns: int
    phases: Mapping[str, Sequence[Step]]


class IsSwarm(KernelError):
    """The file describes worlds to be drawn by the simulator, not a story."""


def read_story(path: Path) -> Story:
    """The story in a file. Raises KernelError EINVAL, or Swarm."""
    tree = _tree(path)
    if _SWARM in tree:
        raise IsSwarm(
            errno.EINVAL,
            f"{path}: this is a swarm: one seed draws each of its worlds",
            f"xpmem-emu sim run {path} --seed 0",
        )
    try:
        file = msgspec.convert(tree, _File)
        patience_ns = parse_time(file.cluster.patience)
    except msgspec.ValidationError as error:
        raise _refused(path, *_keyed(str(error))) from None
    except ValueError as error:
        raise _refused(path, f"cluster.patience: {error}", "such as 10s") from None
    partitions = tuple(f"p{number}" for number in range(file.cluster.partitions))
    phases = {name: _steps(path, name, getattr(file.story, name), partitions) for name in PHASES}
    image = _image(path, file.cluster)
    domains = tuple(file.cluster.domains) or (image.domain,) * len(partitions)
    if len(domains) != len(partitions):
        raise _refused(
            path, f"cluster.domains: {len(domains)} for {len(partitions)} partitions", "one each"
        )
    story = Story(
        name=file.name,
        title=file.title,
        shows=file.shows,
        path=path,
        partitions=partitions,
        domains=domains,
        image=image,
        patience_ns=patience_ns,
        phases=phases,
    )
    _require_names(story)
    return story


def shipped_stories() -> list[Story]:
    """Every scenario that ships, by name. Raises KernelError."""
    folder = shipped_folder("scenarios")
    paths = [path for path in sorted(folder.glob("*.toml")) if _SWARM not in _tree(path)]
    return [read_story(path) for path in paths]


def is_story(path: Path) -> bool:
    """Whether a file has a story's table. Raises KernelError when it is no TOML."""
    return "story" in _tree(path)


# -- reading ----------------------------------------------------------------------------------


def _tree(path: Path) -> Tree:
    try:
        return toml.parse(toml.read_text(path))
    except toml.TomlError as error:
        raise _refused(path, str(error), SEE_FORMAT) from None
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}", "the path of a file") from None


def _keyed(message: str) -> tuple[str, str]:
    """msgspec's message with the key first, and near matches of an unknown key."""
    text, _, place = message.partition(" - at `$.")
    key = place.rstrip("`")
    if "unknown field" in text:
        kinds: dict[str, type[Struct]] = {"": _File, "cluster": ClusterPart, "story": Phases}
        unknown = text.rpartition("field `")[2].rstrip("`")
        known = [each.name for each in msgspec.structs.fields(kinds[key])]
        return f"{key + '.' if key else ''}{unknown}: no such key", near(unknown, known)
    return (f"{key}: {text}" if key else text), SEE_FORMAT


def _image(path: Path, cluster: ClusterPart) -> Image:
    tree = _tree(find_toml("images", cluster.image, path.parent))
    override: Tree = {"memory": {"size": cluster.memory, "swap": cluster.memory}}
    for key, value in [*override.items(), *cluster.override.items()]:
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
    try:
        return convert_image(tree)
    except ImageError as error:
        raise _refused(path, f"cluster.override.{error.cause}", error.remedy) from None


def _steps(path: Path, phase: str, text: str, partitions: Sequence[str]) -> list[Step]:
    steps = []
    whole = path.read_text()
    # A phase stands in the file as it is, unless it is written with escapes: then from its start.
    first = whole.count("\n", 0, max(0, whole.find(text))) + 1
    for number, line in enumerate(text.splitlines(), start=first):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        try:
            steps.append(Step(phase, number, said, read_action(said, partitions)))
        except ScenarioError as wrong:
            raise _refused(path, f"line {number}, {phase}: {wrong}", wrong.remedy) from None
    return steps


def _require_names(story: Story) -> None:
    """Raises KernelError for a step that uses what no step before it can have made."""
    made: set[str] = set()
    for together in (("setup",), ("load", "faults"), ("heal",), ("final",), ("check",)):
        steps = [step for phase in together for step in story.phases[phase]]
        beside = {_made(step) for step in steps} if len(together) > 1 else set[str]()
        for step in steps:
            _require_step(story, step, made | beside)
            made.add(_made(step))


def _require_step(story: Story, step: Step, made: set[str]) -> None:
    where = f"line {step.line}, {step.phase}"
    known = made - {""}
    for name in names_used(step.action):
        if name not in known and name not in story.partitions:
            remedy = near(name, known) or "a step before that makes it: NAME = ..."
            raise _refused(story.path, f"{where}: nothing is called {name}", remedy)
    for name in partitions_used(step.action):
        if name not in story.partitions:
            raise _refused(
                story.path, f"{where}: there is no partition {name}", ", ".join(story.partitions)
            )


def _made(step: Step) -> str:
    return step.action.name if isinstance(step.action, Do) else ""


def _refused(path: Path, cause: str, remedy: str) -> KernelError:
    return KernelError(errno.EINVAL, f"{path}: {cause}", remedy)
