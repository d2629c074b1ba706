"""Stories written by a test, told on the simulator; and folders of a test's own for clusters."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.conftest import home  # noqa: F401 - the fixture
from xpmem_emu.backend.sim_backend import SimBackend
from xpmem_emu.scenario.story import Story, read_story
from xpmem_emu.scenario.verdict import Ran, run_story

Tell = Callable[..., Ran]

SHARED = """
exporter = p0 spawn
importer = p1 spawn
memory = exporter mmap 8p
exporter store memory "hello"
segid = exporter xpmem_make memory 8p
apid = importer xpmem_get segid
at = importer xpmem_attach apid 0 8p
"""
"""A setup: memory of p0, attached on p1."""


def written(folder: Path, cluster: str = "", **phases: str) -> Path:
    """A scenario file with these phases."""
    story = "\n".join(f"{name} = '''\n{text}\n'''" for name, text in phases.items())
    path = folder / "told.toml"
    path.write_text(
        f'name = "told"\ntitle = "a story of a test"\nshows = ""\n{cluster}\n[story]\n{story}\n'
    )
    return path


def silent(text: str) -> None:
    """Hears progress and says nothing."""


def on_sim(story: Story, seed: int = 0) -> Ran:
    return run_story(story, SimBackend(story, seed), seed, silent)


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Writes a story with these phases, and tells it on the simulator."""

    def told(cluster: str = "", **phases: str) -> Ran:
        return on_sim(read_story(written(tmp_path, cluster, **phases)))

    return told
