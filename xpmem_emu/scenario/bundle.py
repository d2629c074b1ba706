"""The result bundle of a run: what was told, what came, and the whole event stream, in one folder.

    scenario.toml  the file that ran      story.txt     its steps, when each was over, what came
    result.json    verdict and findings   events.jsonl  the event stream
    diagram.svg    messages               trace.json    for the Perfetto viewer
    replay         the command that does it again

`runs/<scenario>/latest` points at the newest one of a scenario, `runs/latest` at that of all.
"""

import shutil
from pathlib import Path

import msgspec

from xpmem_emu.judge.diagram import Mark, message_diagram
from xpmem_emu.judge.perfetto import perfetto_trace
from xpmem_emu.scenario.step_syntax import FromOutside
from xpmem_emu.scenario.story import Story
from xpmem_emu.scenario.verdict import Ran
from xpmem_emu.sim.bundle import new_bundle

_json = msgspec.json.Encoder(enc_hook=str)


def write_story_bundle(story: Story, ran: Ran, root: Path, replay: str) -> Path:
    """Write the bundle under `root`; its folder. Raises OSError."""
    with new_bundle(root, story.name) as folder:
        shutil.copyfile(story.path, folder / "scenario.toml")
        (folder / "story.txt").write_text(_told(ran))
        result = msgspec.json.format(_json.encode(ran.judgement), indent=1)
        (folder / "result.json").write_bytes(result)
        lines = [each.flat() for each in ran.records]
        (folder / "events.jsonl").write_bytes(_json.encode_lines(lines))
        (folder / "diagram.svg").write_text(drawn(story, ran))
        (folder / "trace.json").write_bytes(_json.encode(perfetto_trace(ran.records)))
        (folder / "replay").write_text(f"{replay}\n")
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
