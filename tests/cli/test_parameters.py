"""What people type becomes values, and what cannot be read says how to write it."""

from collections.abc import Callable

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_tidy import commands
from xpmem_emu.cli import parameters
from xpmem_emu.cli.main import cli
from xpmem_emu.cli.parameters import Handle, TaskRef
from xpmem_emu.cluster.liveness import BOOT_LIMIT


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("p0", ("p0",)),
        ("3", ("p3",)),
        ("p0-3,p5", ("p0", "p1", "p2", "p3", "p5")),
        ("0-1, p1", ("p0", "p1")),
        ("p2,p0", ("p2", "p0")),
        ("left,right", ("left", "right")),
    ],
)
def test_partition_sets_keep_their_order_and_drop_repeats(
    text: str, names: tuple[str, ...]
) -> None:
    assert parameters.parse_partitions(text) == names


@pytest.mark.parametrize("text", ["", "p0,", "p3-1", "p0 p1", "p0;p1", "-"])
def test_unreadable_partition_sets_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parameters.parse_partitions(text)


names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,31}", fullmatch=True)
addresses = st.integers(0, (1 << 64) - 1)


@given(
    names,
    st.integers(0, BOOT_LIMIT - 1),
    st.integers(0, 1 << 20),
    addresses,
    st.integers(0, 1 << 40),
)
def test_a_printed_handle_reads_back(
    name: str, boot: int, pid: int, address: int, offset: int
) -> None:
    handle = Handle(TaskRef(name, boot, pid), address, offset)
    assert parameters.handle(str(handle)) == handle
    assert parameters.looks_like_handle(str(handle))


def test_a_handle_takes_an_offset_with_a_unit() -> None:
    assert parameters.handle("p1:178364521345:12:0x1000+4K").place == 0x2000


@pytest.mark.parametrize(
    "text",
    [
        "p1",
        "p1:9:12",
        "p1:12:",
        "p1:9:x:0x10",
        "p1:9:12:0x10+",
        "p1:9:12:0x10+zz",
        "0x10",
        "p1:12:0x10",
        "p1/0x10",
        "",
    ],
)
def test_an_unreadable_handle_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parameters.handle(text)


@pytest.mark.parametrize("path", ["big.bin", "./p1:2", "dir/file", "C:x", "p1/4096", "p1:9:2"])
def test_file_names_are_not_taken_for_handles(path: str) -> None:
    assert not parameters.looks_like_handle(path)


def test_tasks_are_written_as_partition_boot_and_pid() -> None:
    assert parameters.parse_task("p0:178364521345:12") == TaskRef("p0", 178364521345, 12)
    with pytest.raises(click.BadParameter, match="P:BOOT:PID"):
        parameters.parse_task("12")
    with pytest.raises(click.BadParameter, match="does not say of which boot"):
        parameters.parse_task("p0:12")


@given(st.integers(1, (1 << 60) - 1))
def test_ids_read_back_in_hex_and_decimal(ident: int) -> None:
    assert parameters.ident(hex(ident)) == parameters.ident(str(ident)) == ident


@pytest.mark.parametrize("text", ["0", "-5", "0x1000000000000000", "abc", "012"])
def test_ids_outside_60_bits_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parameters.ident(text)


def test_a_segment_is_an_id_or_a_name() -> None:
    assert parameters.segment("0x10") == 16
    assert parameters.segment("field.v1") == "field.v1"
    for bad in ("-1", "0", "a b", "1x"):
        with pytest.raises(click.BadParameter):
            parameters.segment(bad)


@pytest.mark.parametrize(("text", "bits"), [("0600", 0o600), ("666", 0o666), ("0", 0)])
def test_modes_are_octal(text: str, bits: int) -> None:
    assert parameters.mode(text) == bits


@pytest.mark.parametrize("text", ["1000", "9", "rw", "-1"])
def test_modes_outside_the_permission_bits_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parameters.mode(text)


@pytest.mark.parametrize("text", ["KILL", "sigkill", "9"])
def test_signals_have_names_and_numbers(text: str) -> None:
    assert parameters.signal(text) == 9


def test_signals_that_tasks_do_not_know_are_refused() -> None:
    with pytest.raises(click.BadParameter, match="KILL"):
        parameters.signal("HUP")


@pytest.mark.parametrize(("text", "count"), [("4K", 4096), ("0x1000", 4096), ("17", 17)])
def test_sizes_take_units_and_hex(text: str, count: int) -> None:
    assert parameters.size(text) == count


def test_a_time_of_zero_is_refused() -> None:
    assert parameters.duration("20ms") == 20_000_000
    with pytest.raises(click.BadParameter):
        parameters.duration("0s")


@pytest.mark.parametrize("read", [parameters.parse_number, parameters.size, parameters.prot])
def test_numbers_sizes_and_protections_refuse_words(read: object) -> None:
    assert callable(read)
    with pytest.raises(click.BadParameter, match="many"):
        read("many")


@pytest.mark.parametrize(
    ("text", "count"), [("1.5G", 3 << 29), ("0.5K", 512), ("2.25MiB", 9 << 18), ("1.0", 1)]
)
def test_sizes_may_have_a_fraction_of_their_unit(text: str, count: int) -> None:
    assert parameters.size(text) == count


@pytest.mark.parametrize("text", ["1.5", "0.0001K", "1.G", ".5K", "1.5.5K", "0x1.8"])
def test_a_size_is_whole_bytes(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parameters.size(text)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parameters.size, "1" + "0" * 20),
        (parameters.size, "9" * 5000),
        (parameters.size, "8E"),
        (parameters.size, "9999999999T"),
        (parameters.size, "0x8000000000000000"),
        (parameters.duration, "9" * 400 + "h"),
        (parameters.duration, "9" * 19 + "s"),
        (parameters.parse_number, "0x1" + "0" * 16),
        (parameters.parse_number, "-1"),
        (parameters.uid, "0xffffffff"),
        (parameters.pages, "0x1" + "0" * 9),
    ],
)
def test_what_no_message_could_carry_is_refused(read: Callable[[str], int], text: str) -> None:
    with pytest.raises(click.BadParameter):
        read(text)


def test_a_place_beyond_the_last_address_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="beyond the end of addresses"):
        _ = parameters.handle("p1:9:12:0xffffffffffffffff+1").place


def test_no_parameter_of_any_command_takes_a_number_of_more_than_64_bits() -> None:
    seen = 0
    for path, command in commands(cli, "xpmem-emu"):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.is_flag:
                continue
            try:
                value = parameter.type.convert("1" + "0" * 20, parameter, None)
            except click.UsageError:
                seen += 1
            else:
                assert not isinstance(value, int), f"{path} {parameter.name}"
    assert seen > 30
