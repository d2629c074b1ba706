"""Image files: what is refused, and that the refusal names the key."""

from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import fields

from xpmem_emu.image import Image, ImageError, NotifierDesign, image_text, read_image
from xpmem_emu.shipped import find_toml


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[xpc]\nslots = 1", "xpc.slots"),
        ("[xpc]\nslotz = 8", "slotz"),
        ("[memory]\nsize = 5", "memory.size"),
        ('[memory]\nsize = "5"', "memory.size"),
        ('[memory]\nsize = "4097"', "memory.size"),
        ('[memory]\nswap = "100"', "memory.swap"),
        ('[deadlines]\nfault_attempt = "3 parsecs"', "deadlines.fault_attempt"),
        ("[deadlines]\nfault_tries = 0", "deadlines.fault_tries"),
        ("[faults]\nafter = 60\nbefore = 60", "faults.after"),
        ("[faults]\nafter = 96", "faults.after"),
        ('[xpc]\nheartbeat_interval = "1s"', "xpc.heartbeat_check"),
        ('[xpc]\npayload = "17M"', "xpc.payload"),
        ('[xpc]\npayload = "1K"', "xpc.payload"),
        ("[limits]\nrecall_ranges_per_message = 8193", "limits.recall_ranges_per_message"),
        ("[xpc]\npartid_bits = 7", "xpc.partid_bits"),
        ("[xpc]\npartid_bits = 13", "xpc.partid_bits"),
        ("[mmu]\ngru_entries = 0", "mmu.gru_entries"),
        ("[mmu]\ngru_contexts = 9\ngru_asids = 8", "mmu.gru_asids"),
        ('name = ""', "name"),
        ("nonsense", "TOML"),
        ("[elephants]", "elephants"),
    ],
)
def test_a_bad_image_is_refused_by_its_key(text: str, key: str) -> None:
    with pytest.raises(ImageError) as refused:
        read_image(text)
    assert key in refused.value.cause
    assert refused.value.remedy


def test_an_unknown_design_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ImageError) as refused:
        read_image('[mm]\nnotifier = "callback"')
    assert str(refused.value) == (
        "mm.notifier: Invalid enum value 'callback', "
        "not one of page, pages, deferred, gather, range, interval (EINVAL)"
    )
    assert refused.value.remedy


def test_a_design_survives_being_written() -> None:
    image = read_image('[mm]\nnotifier = "gather"')
    assert image.mm.notifier is NotifierDesign.GATHER
    assert read_image(image_text(image)) == image


def test_the_presets_have_the_documented_deadlines() -> None:
    laptop, patient, altix = (
        read_image(find_toml("images", name).read_text()) for name in ("laptop", "patient", "altix")
    )
    second = 1_000_000_000
    beats = (laptop.xpc.heartbeat_interval, laptop.xpc.heartbeat_check)
    assert beats == (second // 10, 4 * second // 10)
    beats = (patient.xpc.heartbeat_interval, patient.xpc.heartbeat_check)
    assert beats == (second // 10, 2 * second)
    assert (altix.xpc.heartbeat_interval, altix.xpc.heartbeat_check) == (5 * second, 20 * second)
    patience = patient.deadlines
    assert (patience.fault_attempt, patience.fault_tries) == (5 * second, 3)
    assert (patience.recall_attempt, patience.recall_tries) == (5 * second, 3)
    assert (laptop.deadlines.fault_attempt, laptop.deadlines.fault_tries) == (second // 2, 3)
    assert (altix.deadlines.fault_attempt, altix.deadlines.fault_tries) == (28 * second, 2)
    assert (laptop.deadlines.recall_attempt, laptop.deadlines.recall_tries) == (second, 2)
    assert (altix.deadlines.recall_attempt, altix.deadlines.recall_tries) == (28 * second, 2)
    assert (laptop.xpc.disengage_limit, altix.xpc.disengage_limit) == (2 * second, 90 * second)
    assert (laptop.deadlines.bte_timeout, altix.deadlines.bte_timeout) == (second // 4, 28 * second)


def test_every_key_is_documented() -> None:
    text = Path("docs/images.md").read_text()
    keys = [field.name for field in fields(Image)]
    for section in fields(Image):
        if isinstance(section.type, type) and issubclass(section.type, Struct):
            keys += [field.name for field in fields(section.type)]
    assert [key for key in keys if f"`{key}`" not in text] == []
