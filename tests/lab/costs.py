"""Costs of round numbers, for sums that one does by hand."""

from xpmem_emu.image import MachineSection, Nanoseconds


def costs(processors: int) -> MachineSection:
    return MachineSection(
        processors=processors,
        lock=Nanoseconds(10),
        handover=Nanoseconds(100),
        switch=Nanoseconds(1000),
        interrupt=Nanoseconds(500),
    )
