"""What the process around a kernel does for a client: who it is, its event stream, its faults. It
answers however the kernel is."""

from xpmem_emu.client.injection_requests import (
    Add,
    InjectionRequest,
    List,
    ReleaseRequest,
    Remove,
    Reset,
)
from xpmem_emu.client.operations import OperationRequest, Steps, operation
from xpmem_emu.client.wire import Ask, BootFacts
from xpmem_emu.codec import convert
from xpmem_emu.kernel.call import TableRow


class HarnessOperations:
    """Methods of a connected partition."""

    @operation
    def boot_facts(self) -> Steps[BootFacts]:
        """Which partition this is, and which boot of it."""
        (answer,) = yield [OperationRequest(None, kind=Ask.BOOT)]
        return convert(answer.value, BootFacts)

    @operation
    def recent_events(self) -> Steps[list[TableRow]]:
        """The last events of the partition, oldest first."""
        (answer,) = yield [OperationRequest(None, kind=Ask.RECENT)]
        return convert(answer.value, list[TableRow])

    @operation
    def fault_add(self, fault: str, seed: int = 0) -> Steps[str]:
        """Put up a fault, in the grammar of docs/faults.md. Result: its name."""
        (answer,) = yield [_faults(Add(text=fault, seed=seed))]
        return convert(answer.value, str)

    @operation
    def fault_list(self) -> Steps[list[TableRow]]:
        """The faults in force at this partition."""
        (answer,) = yield [_faults(List())]
        return convert(answer.value, list[TableRow])

    @operation
    def fault_remove(self, name: str) -> Steps[None]:
        """Heal one fault."""
        yield [_faults(Remove(name=name))]

    @operation
    def fault_reset(self) -> Steps[list[str]]:
        """Heal every fault. Result: their names."""
        (answer,) = yield [_faults(Reset())]
        return convert(answer.value, list[str])

    @operation
    def fault_release(self, name: str) -> Steps[int]:
        """Let go the messages that a fault holds back. Result: how many."""
        (answer,) = yield [_faults(ReleaseRequest(name=name))]
        return convert(answer.value, int)


def _faults(body: InjectionRequest) -> OperationRequest:
    return OperationRequest(body, kind=Ask.FAULTS)
