"""Files that would keep a parser busy, or end it."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from xpmem_emu import toml
from xpmem_emu.cluster.topology import load_image, read_topology
from xpmem_emu.errors import KernelError
from xpmem_emu.scenario.story import read_story
from xpmem_emu.shipped import shipped_folder
from xpmem_emu.sim.draw.swarm import read_swarm

FILES = {
    "nested arrays": "a = " + "[\n" * 20_000,
    "nested arrays on a line": "a = " + "[" * 20_000,
    "nested tables": "a = " + "{a=" * 300 + "1" + "}" * 300,
    "a header of many parts": "[" + ".".join("a" * 100_000) + "]",
    "a key of many parts": ".".join("a" * 20_000) + " = 1",
    "many long keys": "\n".join(".".join(f"k{i}" for i in range(150)) + "=1" for _ in range(2_000)),
    "too long": "# comment\n" * 30_000,
    "no text": "\udcff\udcfe",
    "a long number": "a = " + "1" * 100_000,
}
READERS = {
    "topology": lambda path: read_topology(str(path)),
    "image": lambda path: load_image(str(path)),
    "scenario": read_story,
    "swarm": read_swarm,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_a_file_is_refused_and_named(
    text: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(KernelError) as caught:
        read(path)
    assert "file.toml" in caught.value.cause


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    assert len(toml.read_text(Path("/dev/zero"))) == toml.SIZE_MAX + 1


@pytest.mark.parametrize("kind", ["images", "topologies", "scenarios"])
def test_what_is_shipped_is_far_from_the_bounds(kind: str) -> None:
    for path in shipped_folder(kind).glob("*.toml"):
        text = toml.read_text(path)
        assert len(text) < toml.SIZE_MAX // 8
        assert max(map(len, text.splitlines())) < toml.LINE_MAX // 5
        assert toml.parse(text) == tomllib.loads(text)
