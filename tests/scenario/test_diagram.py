"""The message diagram of a story is legible: geometry, because nobody looks at it here."""

import re
from html import unescape
from itertools import combinations
from typing import NamedTuple

import pytest

from xpmem_emu.judge.diagram import LETTER, Mark, message_diagram
from xpmem_emu.scenario.bundle import drawn
from xpmem_emu.scenario.story import shipped_stories
from xpmem_emu.scenario.verdict import Ran

from .conftest import on_sim

STORIES = {story.name: story for story in shipped_stories()}
BUSY = (
    "pause",
    "kill",
    "inflight-race",
    "thundering-herd",
    "lossy-network",
    "reboot-in-the-middle",
)
_TEXT = re.compile(r"<text (?P<marks>[^>]*)>(?P<text>[^<]*)</text>")
_NUMBER = re.compile(r'\b(x1|x2|y1|y2|x|y|width|height)="(-?[\d.]+)"')
ABOVE, BELOW = 10, 3
"""How far letters of 12 px reach from their base line."""


class Box(NamedTuple):
    text: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)


def numbers(marks: str) -> dict[str, float]:
    return {name: float(value) for name, value in _NUMBER.findall(marks)}


def labels(svg: str) -> list[Box]:
    found = []
    for match in _TEXT.finditer(svg):
        place, text = numbers(match["marks"]), unescape(match["text"])
        length = LETTER * len(text)
        ends = re.search(r'class="[^"]*\be\b', match["marks"])
        left = place["x"] - length if ends else place["x"]
        found.append(Box(text, left, place["y"] - ABOVE, left + length, place["y"] + BELOW))
    return found


@pytest.fixture(scope="module")
def told() -> dict[str, Ran]:
    return {name: on_sim(STORIES[name]) for name in BUSY}


@pytest.mark.parametrize("name", BUSY)
def test_no_two_labels_meet_and_none_is_cut(told: dict[str, Ran], name: str) -> None:
    svg = drawn(STORIES[name], told[name])
    sheet = numbers(svg[: svg.index(">")])
    boxes = labels(svg)
    assert len(boxes) > 10
    assert [(one, other) for one, other in combinations(boxes, 2) if one.meets(other)] == []
    assert [
        box
        for box in boxes
        if box.left < 0 or box.right > sheet["width"] or box.top < 0 or box.bottom > sheet["height"]
    ] == []


@pytest.mark.parametrize("name", BUSY)
def test_every_arrow_begins_below_its_name(told: dict[str, Ran], name: str) -> None:
    svg = drawn(STORIES[name], told[name])
    arrows = [numbers(line) for line in re.findall(r"<line [^>]*marker-end[^>]*>", svg)]
    boxes = labels(svg)
    assert arrows
    for arrow in arrows:
        [label] = [
            box
            for box in boxes
            if 0 < arrow["y1"] - (box.bottom - BELOW) < 5
            and min(abs(box.left - arrow["x1"]), abs(box.right - arrow["x1"])) < 8
        ]
        assert re.fullmatch(r"[A-Z_]+ \d+", label.text)
        assert (label.left > arrow["x1"]) == (arrow["x2"] > arrow["x1"])


def test_what_a_story_does_to_a_partition_is_drawn_with_times_of_the_story(
    told: dict[str, Ran],
) -> None:
    ran = told["pause"]
    boxes = labels(drawn(STORIES["pause"], ran))
    for verb in ("hang", "resume"):
        [line] = [line for line in ran.lines if line.step.text.startswith(verb)]
        [mark] = [box for box in boxes if box.text == verb]
        above = [box for box in boxes if box.text.endswith(" ms") and box.top <= mark.top]
        assert above[-1].text == f"{(line.time_ns - ran.begun_ns) / 1e6:.3f} ms"


def test_what_was_done_from_outside_stands_in_the_order_of_time() -> None:
    marks = [Mark(2_000_000, 1, "crash"), Mark(1_000_000, 0, "hang")]
    assert [box.text for box in labels(message_diagram([], 2, marks, 1_000_000))] == [
        "p0",
        "p1",
        "0.000 ms",
        "1.000 ms",
        "hang",
        "crash",
    ]
