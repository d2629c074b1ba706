"""The result bundle of a story: beside what every bundle has, two files.

scenario.toml  the file that ran
story.txt      its steps, when each was over, what came
"""

import shutil
from pathlib import Path

from xpmem_emu.judge.bundle import fill_bundle, new_bundle
from xpmem_emu.judge.diagram import Mark, message_diagram
from xpmem_emu.scenario.step_syntax import FromOutside
from xpmem_emu.scenario.story import Story
from xpmem_emu.scenario.verdict import Ran


def write_story_bundle(story: Story, ran: Ran, root: Path, replay: str) -> Path:
    """Write the bundle under `root`; its folder. Raises OSError."""
    with new_bundle(root, story.name) as folder:
        shutil.copyfile(story.path, folder / "scenario.toml")
        (folder / "story.txt").write_text(_told(ran))
        fill_bundle(folder, ran.judgement, ran.records, drawn(story, ran), replay)
    return folder


def drawn(story: Story, ran: Ran) -> str:
    """The message diagram, with what the story did to partitions."""
    numbers = {name: partid for partid, name in enumerate(story.partitions)}
    marks = [
        Mark(line.time_ns, numbers[step.partition], step.verb)
        for line in ran.lines
        if isinstance(step := line.step.action, FromOutside)
    ]
    return message_diagram(ran.records, len(story.partitions), marks, ran.begun_ns)


def _told(ran: Ran) -> str:
    lines = [
        f"{(line.time_ns - ran.begun_ns) / 1e6:12.3f} ms  {line.step.phase:<7}{line.step.text}"
        f"\n{'':27}{line.came}"
        for line in ran.lines
    ]
    return "\n".join([*lines, *ran.judgement.findings, ran.judgement.verdict.value]) + "\n"
