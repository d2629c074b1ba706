"""What `make fuzz` does ten million times, a few thousand times, and what it is guided by."""

from random import Random, SystemRandom
from typing import get_args

import pytest

from xpmem_emu.codec import BadMessage
from xpmem_emu.kernel.breaking import BreakingCall
from xpmem_emu.kernel.calls import AnyCall
from xpmem_emu.xpc.frame import KIND, decode_frame, seal

from . import decoders
from .decoders import DECODERS, REFUSED, mutated, read_console, read_frame, seeds
from .fuzz import Progress, lines_of, mark_of, reached

INPUTS = 10_000
each_decoder = pytest.mark.parametrize("name", DECODERS)


@each_decoder
def test_mutated_inputs_are_accepted_or_refused_and_nothing_else(name: str) -> None:
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice, first, said = Random(seed), seeds(name), set[str]()
    for _ in range(INPUTS):
        data = dice.choice(first)
        for _ in range(dice.randint(1, 3)):
            data = mutated(data, dice.randrange)
        said.add(DECODERS[name](data))
    assert any(one.startswith(REFUSED) for one in said)
    assert not all(one.startswith(REFUSED) for one in said)


def test_it_begins_with_one_input_of_every_type_there_is() -> None:
    assert {read_frame(one) for one in seeds("frame")} == set(KIND.values())
    calls = {kind.__name__ for kind in get_args(AnyCall) + get_args(BreakingCall)}
    accepted = {read_console(one) for one in seeds("console")}
    assert calls < accepted
    assert {"Hello", "Done", "Raised", "Failed", "EventBatch"} < accepted
    assert not any(one.startswith(REFUSED) for one in accepted)


@each_decoder
def test_a_decoder_that_raises_something_else_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise OverflowError

    monkeypatch.setattr(decoders, "decode_frame" if name == "frame" else "read_request", broken)
    with pytest.raises(OverflowError):
        DECODERS[name](seeds(name)[0])


def test_a_frame_that_comes_back_as_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = seeds("frame")[2], seeds("frame")[3]
    right = decode_frame
    monkeypatch.setattr(decoders, "encode_frame", lambda *_: seal(other[1:]))
    monkeypatch.setattr(decoders, "decode_frame", lambda frames: right(frames))
    with pytest.raises(AssertionError):
        read_frame(first)


def test_a_refusal_counts_by_its_reason_and_not_by_what_was_sent() -> None:
    why = "Object contains unknown field `{}` - at `$[{}]`"
    assert mark_of(why.format("a", 1)) == mark_of(why.format("b", 22))
    assert mark_of("Expected `int` - at `$.pid`") != mark_of("Expected `int` - at `$.uid`")


def test_progress_is_what_libfuzzer_tells() -> None:
    progress = Progress()
    progress.read("#2856\tREDUCE cov: 66 ft: 80 corp: 18/181b lim: 16384 exec/s: 0 rss: 55Mb")
    progress.read("Done 3000 runs in 2 second(s)")
    assert (progress.runs, progress.reached, progress.features, progress.kept) == (2856, 66, 80, 18)


@each_decoder
def test_the_lines_of_a_decoder_that_inputs_run_are_told(name: str) -> None:
    lines, accepted = reached(name, seeds(name))
    module = BadMessage.__module__ if name == "console" else "xpmem_emu.xpc.frame"
    (path,) = lines_of([module])
    assert lines[path] & lines_of([module])[path]
    assert len(accepted) == len({DECODERS[name](one) for one in seeds(name)})
    assert reached(name, [])[1] == set()
