"""How a machine grows: everybody in session with everybody, or domains that meet on use."""

from collections.abc import Sequence

from msgspec.structs import replace

from xpmem_emu.fields import PARTID_MAX
from xpmem_emu.lab.experiment import Conclusion, Curves, Experiment, LabRow, Setting, Word, number
from xpmem_emu.lab.large_machine import run_machine
from xpmem_emu.lab.tables import lab_cell

_LEAST = 64


def _cases(setting: Setting) -> list[LabRow]:
    most = setting.scaled(PARTID_MAX + 1, _LEAST)
    sizes = [size for size in (_LEAST, 256, 1024, 4096) if size <= most]
    # With everybody in session with everybody the machine of 1,024 alone would take the hour.
    all_to_all = [size for size in sizes if size <= 256]
    return [
        {"sessions": sessions, "partitions": size}
        for sessions, those in (("all", all_to_all), ("domain", sizes))
        for size in those
    ]


def _measure(setting: Setting, case: LabRow) -> LabRow:
    size, image = number(case, "partitions"), setting.image
    xpc = replace(image.xpc, sessions=case["sessions"])
    machine = run_machine(size, replace(image, xpc=xpc), setting.seed)
    each = {phase.name: round(phase.messages / size) for phase in machine.phases}
    return {
        "sessions_each": round(machine.sessions / size),
        "messages_to_boot": each["boot"],
        "in_an_idle_second": each["idle second"],
        "to_share": each["share"],
        "to_recall": each["recall"],
        "recalled_in_ns": machine.phase("recall").virtual_ns,
        "loss_noticed_in_ns": machine.phase("loss noticed").virtual_ns,
    }


def _conclude(rows: Sequence[LabRow]) -> Conclusion:
    def largest(sessions: str) -> LabRow:
        return max(
            (row for row in rows if row["sessions"] == sessions),
            key=lambda row: number(row, "partitions"),
        )

    def shown(row: LabRow, column: str) -> str:
        return lab_cell(column, row[column])

    everybody, by_domain = largest("all"), largest("domain")
    return Conclusion(
        Word.SUPPORTED,
        f"With sessions to everybody each of {shown(everybody, 'partitions')} partitions has "
        f"{shown(everybody, 'sessions_each')} of them and sends "
        f"{shown(everybody, 'messages_to_boot')} messages to boot, and whoever crashes is missed "
        f"after {shown(everybody, 'loss_noticed_in_ns')}: all three grow with the machine, and "
        f"what it sends with its square. With sessions that stand within a domain each of "
        f"{shown(by_domain, 'partitions')} has {shown(by_domain, 'sessions_each')}, boots with "
        f"{shown(by_domain, 'messages_to_boot')} messages and misses who crashes after "
        f"{shown(by_domain, 'loss_noticed_in_ns')}, as in a machine of {_LEAST}. A recall asks "
        f"those who hold the page, and never depended on the size.",
    )


EXPERIMENT = Experiment(
    place=11,
    question="What of a partition grows with the machine that it is in?",
    setup=(
        "The real kernels in one process, eight partitions of 16 nodes to a coherence domain of "
        "128. Each exports a page, maps that of its neighbour in the domain and, by message, that "
        "of its counterpart in the next domain; all pages are given up and recalled at once, then "
        "a tenth of the partitions crash, and the others go on. Whatever is read is compared with "
        "what was stored. *Sessions* is `xpc.sessions` of the image; messages are those of one "
        "partition. Processor time and memory are no function of the seed and not in the table: "
        "docs/laboratory.md has some."
    ),
    claim=(
        "A machine is larger than what is coherent in it, 512 processors of 128 nodes on one "
        "series (sources T22), and no table with a place for each processor of it is small "
        "(sources T21)."
    ),
    cases=_cases,
    measure=_measure,
    conclude=_conclude,
    curves=Curves(
        x="partitions",
        y="messages_to_boot",
        series="sessions",
        logarithmic=("partitions", "messages_to_boot"),
    ),
)
