"""What an arriving frame means for the partition level: which session it is of, what it says.

`admit` is the gate in front of everything else in XPC: it drops the frames of other sessions and
notices new incarnations. `receive_control` then applies the unnumbered control messages. They
state facts about the sender, so each is safe to lose, to repeat and to come late within its
session; disagreement is answered with our own state until both sides agree:

    here \\ there   wants us                          does not want us
    INACTIVE       activate; if it is still in the   nothing, or, if it is letting go, say
                   session we left, tell it to go    that we have let go
    ACTIVATING     contact, or tell it to go         nothing, it will hear from us again
    ACTIVE         nothing, it will hear from us     deactivate
    DEACTIVATING   nothing, it will hear from us     note that it has let go

"It will hear from us" is a heartbeat, or the answer to an ACTIVATE_REQ, which need not know us.

Sources 3.5; the missing stamp check of DEACTIVATE_REQ there is a defect, not repeated here.
"""

from msgspec.structs import replace

from xpmem_emu.xpc import events
from xpmem_emu.xpc.activation import UP, ActState
from xpmem_emu.xpc.discovery import check_page
from xpmem_emu.xpc.frame import KIND, Header
from xpmem_emu.xpc.messages import (
    ActivateReq,
    DeactivateReq,
    Heartbeat,
    Message,
    RsvdPage,
    RsvdPageRead,
    SyncActState,
)
from xpmem_emu.xpc.partition import Partition
from xpmem_emu.xpc.reasons import Reason, reason_of
from xpmem_emu.xpc.remote import EPOCH_BITS
from xpmem_emu.xpc.wire import Local

_DISCOVERY = (RsvdPageRead, RsvdPage, ActivateReq)


def admit(local: Local, partition: Partition, header: Header, message: Message) -> bool:
    """Whether the frame is of a current session. Discovery may come from before there is one."""
    known = header.dst_incarnation == partition.mine
    lost = header.dst_incarnation == 0 and isinstance(message, _DISCOVERY)
    if not (known or lost) or header.src_incarnation < partition.remote.seen:
        partition.counters.stale_frames += 1
        local.tracer.emit(
            events.Stale(
                peer=partition.partid,
                kind=KIND[type(message)],
                src_incarnation=header.src_incarnation,
                dst_incarnation=header.dst_incarnation,
            )
        )
        return False
    if header.src_incarnation > partition.remote.seen:
        _newer(local, partition, header.src_incarnation)
    return True


def _newer(local: Local, partition: Partition, incarnation: int) -> None:
    """The peer has torn down whatever it had with us; or another process boots in its place, and
    then nobody says what became of the one before (`sim explore boot-over`):

        process of boot 7              we                       process of boot 8
        stopped in the middle of a store
                                       given up: quarantine
                                                                boots, is heard of
                                       of boot 7 it proves nothing
        wakes: stores into a frame in quarantine
    """
    remote = partition.remote
    # What it was known for is forgotten first, so that what follows acts on the new incarnation.
    remote.renew(incarnation)
    if partition.state in (ActState.ACTIVE, ActState.DEACTIVATING):
        partition.deactivate(Reason.REACTIVATING, "xpc/control:newer")
    if remote.left:
        left, remote.left = remote.left, 0
        if left >> EPOCH_BITS == incarnation >> EPOCH_BITS:
            local.tracer.emit(events.PartitionGone(peer=partition.partid, incarnation=left))
            local.listener.partition_gone(partition.partid, left)
    partition.changed()


def receive_control(local: Local, partition: Partition, header: Header, message: Message) -> None:
    """Apply an admitted partition-level message."""
    match message:
        case RsvdPageRead():
            page = local.page
            partition.tell(replace(page, boot=0) if local.stopping else page, 0)
        case RsvdPage():
            _page(local, partition, header, message)
        case ActivateReq() if header.dst_incarnation != partition.mine:
            _lost(partition, ActState(message.act_state))
        case ActivateReq() | SyncActState():
            _heard(partition, ActState(message.act_state))
        case Heartbeat():
            _heartbeat(partition, message)
        case DeactivateReq():
            _deactivate(partition, reason_of(message.reason))


def _heard(partition: Partition, act_state: ActState) -> None:
    """The peer, which knows our incarnation, is in this state: the table of the module header."""
    remote, wanted = partition.remote, act_state in UP
    remote.act_state = act_state
    match partition.state:
        case ActState.INACTIVE:
            _heard_inactive(partition, act_state)
        case ActState.ACTIVATING if wanted:
            remote.knows_us = True
            partition.contact()
        case ActState.ACTIVE if not wanted:
            partition.deactivate(Reason.OTHER_GOING_DOWN, "xpc/control:heard")


def _heard_inactive(partition: Partition, act_state: ActState) -> None:
    remote = partition.remote
    if act_state in UP and remote.seen != remote.left:
        partition.activate()
    elif act_state in UP:
        partition.tell(DeactivateReq(partition.reason), remote.seen)
    elif act_state is ActState.DEACTIVATING:
        partition.say_heartbeat()


def _lost(partition: Partition, act_state: ActState) -> None:
    """The peer wants us but need not know our incarnation: tell it."""
    if partition.state is ActState.INACTIVE:
        _heard(partition, act_state)
    elif partition.state in UP:
        partition.remote.act_state = act_state
        partition.sync()


def _page(local: Local, partition: Partition, header: Header, page: RsvdPage) -> None:
    boot = header.src_incarnation >> EPOCH_BITS
    verdict = check_page(page, sender=partition.partid, boot=boot, mine=local.page)
    if verdict is not Reason.SUCCESS:
        partition.reason, partition.place = verdict, "xpc/control:page"
        return
    partition.remote.page = page
    if partition.state is ActState.INACTIVE:
        partition.activate()
    elif partition.state is ActState.ACTIVATING:
        partition.contact()


def _heartbeat(partition: Partition, message: Heartbeat) -> None:
    if not partition.remote.beat(message.value, message.offline):
        return
    act_state = ActState(message.act_state)
    _heard(partition, act_state)
    if partition.state is ActState.DEACTIVATING and act_state not in UP and not message.engaged:
        partition.remote.let_go = True
        partition.changed()


def _deactivate(partition: Partition, reason: Reason) -> None:
    partition.remote.act_state = ActState.DEACTIVATING
    partition.deactivate(reason, f"p{partition.partid}")
