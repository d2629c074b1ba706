"""What calls do to files: their bytes and their ends.

Between the end of a file and the end of its page nobody sees anything but zeros once the file
grows over it; what a mapping stores there before may stay or go.
"""

from xpmem_emu.judge.shadow.cells import NOTHING_STORED, Order, StoreFate, cut_pages
from xpmem_emu.judge.shadow.spaces import SPACE_END, Finish
from xpmem_emu.judge.shadow.world import Backing, File, ShadowPartition
from xpmem_emu.kernel import calls
from xpmem_emu.kernel.interface import Done, Failed, Outcome
from xpmem_emu.units import PAGE_SHIFT, PAGE_SIZE


class Files:
    """Carries changes of files out on the model, and compares what is read."""

    def __init__(self, clock: Order) -> None:
        self._clock = clock

    def creat(self, at: ShadowPartition, call: calls.Creat) -> Finish:
        """A file of zeros."""
        return self._name(at, call.file, File(call.size))

    def unlink(self, at: ShadowPartition, call: calls.Unlink) -> Finish:
        """The name goes."""
        return self._name(at, call.file, None)

    def _name(self, at: ShadowPartition, name: str, file: File | None) -> Finish:
        begin = self._clock.now
        span = at.names.begin(begin, 0, 1, self._clock.oldest)

        def finish(outcome: Outcome | None) -> None:
            if at.names.crossing(begin, 0, 1, but=span) or file is None:
                if not isinstance(outcome, Failed):
                    at.files.pop(name, None)
            elif isinstance(outcome, Done):
                at.files[name] = file
            span.end = self._clock.now

        return finish

    def truncate(self, at: ShadowPartition, call: calls.Truncate) -> Finish:
        """Another end: pages behind it go, mapped private ones too; new ones are zeros."""
        file = at.files.get(call.file)
        if file is None:
            return _ignored
        begin = self._clock.now
        span = file.sizes.begin(begin, 0, SPACE_END, self._clock.oldest)

        def finish(outcome: Outcome | None) -> None:
            crossed = file.sizes.crossing(begin, 0, SPACE_END, but=span)
            if isinstance(outcome, Done) and not crossed and file.size is not None:
                self._resize(file, call.size, begin)
            elif not isinstance(outcome, Failed) or crossed:
                file.size = None
            if not isinstance(outcome, Failed):
                self._drop_copies(at, file)
            span.end = self._clock.now

        return finish

    def _resize(self, file: File, size: int, begin: int) -> None:
        assert file.size is not None
        end = min(file.size, size)
        for index, cell in file.cells.items():
            low = end - (index << PAGE_SHIFT)
            if low < PAGE_SIZE:
                cell.wipe(max(low, 0), begin)
        file.size = size

    def _drop_copies(self, at: ShadowPartition, file: File) -> None:
        """Of private mappings nobody knows which pages are still what they were."""
        for task in at.tasks.values():
            for vpn, page in list(task.pages.items()):
                if page.file is file and page.kind is Backing.PRIVATE:
                    task.forget(vpn, vpn + 1)

    def pwrite(self, at: ShadowPartition, call: calls.Pwrite, data: bytes) -> Finish:
        """Bytes at an offset, and perhaps a later end."""
        file = at.files.get(call.file)
        if file is None or not data:
            return _ignored
        begin, end = self._clock.now, call.offset + len(data)
        grows = (
            file.size is None or end > file.size or bool(file.sizes.crossing(begin, 0, SPACE_END))
        )
        span = file.sizes.begin(begin, 0, SPACE_END, self._clock.oldest) if grows else None
        writes = [
            (index, file.cell(index).writes.begin(begin, low, high, self._clock.oldest), at_byte)
            for index, low, high, at_byte in cut_pages(call.offset, len(data))
        ]

        def finish(outcome: Outcome | None) -> None:
            sized = not file.sizes.crossing(begin, 0, SPACE_END, but=span)
            if isinstance(outcome, Done) and grows:
                if sized and file.size is not None:
                    self._resize(file, max(file.size, end), begin - 1)
                else:
                    file.size = None
            elif grows and not isinstance(outcome, Failed):
                file.size = None
            fate = StoreFate.DONE if isinstance(outcome, Done) and sized else StoreFate.MAYBE
            for index, write, at_byte in writes:
                part = data[at_byte : at_byte + write.high - write.low]
                file.cell(index).finish(write, self._clock.now, part, fate)
            if span is not None:
                span.end = self._clock.now

        return finish

    def pread(self, at: ShadowPartition, call: calls.Pread, outcome: Done, begin: int) -> str:
        """What is wrong with the bytes that were read; empty: nothing."""
        file = at.files.get(call.file)
        unsure = at.names.crossing(begin, 0, 1)
        if file is None or unsure or file.size is None:
            return ""
        if file.sizes.crossing(begin, 0, SPACE_END):
            return ""
        seen = bytes(outcome.bulk)
        most = max(min(call.size, file.size - call.offset), 0)
        if len(seen) != most:
            return f"{len(seen)} bytes, with {most} there"
        for index, low, high, at_byte in cut_pages(call.offset, len(seen)):
            cell = file.cells.get(index, NOTHING_STORED)
            wrong = cell.differs(low, seen[at_byte : at_byte + high - low], begin)
            if wrong:
                return f"page {index}: {wrong}"
        return ""


def tail(file: File, index: int) -> int:
    """Where in a page of the file its bytes end."""
    assert file.size is not None
    return max(min(file.size - (index << PAGE_SHIFT), PAGE_SIZE), 0)


def _ignored(outcome: Outcome | None) -> None:
    """Nothing that the model knows of changes."""
