"""Fuzz the decoders that see bytes of others, guided by coverage: `make fuzz`.

    python -m tests.hostile.fuzz --runs 10000000 --seed 1

Half of the executions go to the decoder of frames, half to that of the console. Each has a process
of its own in which atheris instruments our modules before they are imported (libFuzzer then keeps
every input that reaches something new); msgspec and msgpack are compiled, and not instrumented, so
so what they say of an input counts as a branch of its own, and every other input is changed by what
MessagePack is made of instead of by bytes. At the end the inputs that were kept are run once more
to tell which lines of the decoders and which types they reach. Needs `pip install -e '.[fuzz]'`.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any
from zlib import crc32

import click

COVERED = {
    "frame": ("xpmem_emu.xpc.frame",),
    "console": ("xpmem_emu.live.console.requests", "xpmem_emu.client.wire", "xpmem_emu.codec"),
}
"""Modules whose lines are counted, by decoder."""
INPUT_MAX = 16 << 10
INPUT_S = 1.0
"""An input that takes more processor time is a finding."""
HANG_S = 900
"""So is one that takes so long by the clock. Machines that have other things to do stand still for
minutes."""
RSS_MIB = 1024
_STATUS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+")
_VALUES = re.compile(r"field `[^`]*`|'[^']*'|\d+")
"""What two refusals for one reason differ in."""
MARKS = 1024


class Found(Exception):
    """The fuzzer ended with an input that does what none may; the text is what it said."""


@dataclass(slots=True)
class Progress:
    """What libFuzzer told last: branches reached, pairs of a branch and how often it was in one
    execution, inputs kept."""

    runs: int = 0
    reached: int = 0
    features: int = 0
    kept: int = 0

    def read(self, line: str) -> None:
        """One line of its standard error."""
        if found := _STATUS.match(line):
            self.runs, self.reached, self.features, self.kept = map(int, found.groups())


def mutate_first(data: bytes, most: int, seed: int) -> bytes:
    """The mutator that libFuzzer asks: its own for one half, ours for the other."""
    import atheris

    from tests.hostile.decoders import mutated

    dice = Random(seed)
    changed = data if dice.randrange(2) else mutated(data, dice.randrange)
    # Never the same again: where ours did nothing, and for its half, theirs.
    return changed[:most] if changed != data else bytes(atheris.Mutate(data, most))


def mark_of(said: str) -> int:
    """Which branch stands for what a decoder said of an input."""
    return crc32(_VALUES.sub("", said).encode(errors="replace")) % MARKS


def child(decoder: str, arguments: list[str]) -> None:
    """Be the process that fuzzes one decoder. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["xpmem_emu"], enable_loader_override=False):
        from tests.hostile.decoders import DECODERS
    decode = DECODERS[decoder]
    # One function each: what is reached is counted by code, not by calls.
    marks = [atheris.instrument_func(_mark()) for _ in range(MARKS)]

    def target(data: bytes) -> None:
        begun_s = time.process_time()
        marks[mark_of(decode(data))]()
        assert time.process_time() - begun_s < INPUT_S

    atheris.Setup([sys.argv[0], *arguments], target, custom_mutator=mutate_first)
    atheris.Fuzz()


def _mark() -> Callable[[], None]:
    def mark() -> None:
        pass

    return mark


def fuzz(decoder: str, runs: int, seed: int, corpus: Path) -> Iterator[Progress]:
    """Execute `decoder` so many times; `corpus` gets what is worth keeping. Yields as it goes on.
    Raises Found."""
    command = [
        sys.executable,
        "-m",
        "tests.hostile.fuzz",
        "--be",
        decoder,
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={INPUT_MAX}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={RSS_MIB}",
        f"-artifact_prefix={corpus.parent}/{decoder}-",
        str(corpus),
    ]
    progress, said = Progress(), list[str]()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                progress.read(line)
                said = [*said[-60:], line]
                yield progress
        finally:
            process.kill()
    if process.returncode:
        raise Found("".join(said))


# -- what was reached ----------------------------------------------------------------------------


def lines_of(modules: Iterable[str]) -> dict[str, set[int]]:
    """Lines inside functions, by file."""
    found: dict[str, set[int]] = {}
    for name in modules:
        path = str(sys.modules[name].__file__)
        inside = found.setdefault(path, set())
        for code in _functions(compile(Path(path).read_text(), path, "exec")):
            inside |= {line for *_, line in code.co_lines() if line} - {code.co_firstlineno}
    return found


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Codes of the functions in a module; bodies of classes run when it is imported."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _functions(one)
            if "__qualname__" not in one.co_names:
                yield one


def reached(decoder: str, inputs: Iterable[bytes]) -> tuple[dict[str, set[int]], set[str]]:
    """Lines that the inputs run, by file, and the types that they are accepted as."""
    from tests.hostile.decoders import DECODERS, REFUSED

    lines = {path: set[int]() for path in lines_of(COVERED[decoder])}
    accepted = set[str]()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        of_file = lines.get(frame.f_code.co_filename)
        if of_file is None:
            return None
        of_file.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for data in inputs:
            accepted.add(DECODERS[decoder](data))
    finally:
        sys.settrace(before)
    return lines, {one for one in accepted if not one.startswith(REFUSED)}


def tell(decoder: str, progress: Progress, seconds: float, inputs: list[bytes]) -> None:
    """Print what one decoder was put through."""
    lines, accepted = reached(decoder, inputs)
    wanted = lines_of(COVERED[decoder])
    run = sum(len(lines[path] & wanted[path]) for path in wanted)
    click.echo(
        f"{decoder}: {progress.runs:,} executions in {seconds:.0f} s, "
        f"{progress.runs / max(seconds, 0.001):,.0f} a second; nothing found"
    )
    click.echo(
        f"  coverage: {progress.reached} branches, {progress.features} features; "
        f"{len(inputs)} inputs kept run {run} of {sum(map(len, wanted.values()))} lines and "
        f"are accepted as {len(accepted)} types"
    )
    for path, inside in wanted.items():
        if left := sorted(inside - lines[path]):
            click.echo(f"  not run: {Path(path).name} {', '.join(map(str, left))}")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--runs", default=10_000_000, show_default=True, help="Executions of both decoders.")
@click.option("--seed", default=1, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Begin with, and keep, inputs here.")
@click.option("--be", "decoder", hidden=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(runs: int, seed: int, keep: Path | None, decoder: str, arguments: tuple[str, ...]) -> None:
    """Fuzz the decoders of frames and of the console."""
    if decoder:
        child(decoder, list(arguments))
    from tests.hostile.decoders import DECODERS, seeds

    with tempfile.TemporaryDirectory(prefix="xe") as temporary:
        for name in DECODERS:
            corpus = (keep or Path(temporary)) / name
            corpus.mkdir(parents=True, exist_ok=True)
            for number, data in enumerate(seeds(name)):
                (corpus / f"seed{number}").write_bytes(data)
            begun, told = time.monotonic(), 0.0
            progress = Progress()
            try:
                for progress in fuzz(name, runs // len(DECODERS), seed, corpus):
                    if time.monotonic() - told > 10:
                        told = time.monotonic()
                        click.echo(
                            f"{name}: {progress.runs:,} executions after {told - begun:.0f} s",
                            err=True,
                        )
            except Found as found:
                click.echo(f"{found}\nfound by: {name}, --seed {seed}", err=True)
                sys.exit(1)
            tell(
                name,
                progress,
                time.monotonic() - begun,
                [path.read_bytes() for path in sorted(corpus.iterdir())],
            )


if __name__ == "__main__":
    main()
