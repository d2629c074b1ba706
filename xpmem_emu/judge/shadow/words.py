"""Words, as atomic operations see and leave them."""

from xpmem_emu.judge.shadow.cells import Cell
from xpmem_emu.kernel import calls

AMO_WORD = 8
_MASK = (1 << 64) - 1


def after(call: calls.AtomicOp, before: int) -> int:
    """What an atomic operation leaves in a word that was `before`."""
    match call.operation:
        case "add":
            return before + call.operand & _MASK
        case "swap" | "store":
            return call.operand
        case "compare_swap":
            return call.operand if before == call.compare else before
    return before


def unlike(cell: Cell, low: int, before: int) -> str:
    """Compare a word with what was known of it before a store that has not ended yet."""
    known = b"" if cell.data is None else bytes(cell.data[low : low + AMO_WORD])
    blind = cell.fog is not None and any(cell.fog[low : low + AMO_WORD])
    value = int.from_bytes(known, "little")
    return "" if blind or value == before else f"it found {before:#x}, stored was {value:#x}"
