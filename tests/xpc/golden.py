"""One message of every type and the bytes it has on the wire, for ever.

A change of these bytes is a change of the protocol: partitions of different builds could no longer
talk to each other.
"""

from xpmem_emu.xpc.frame import FIRST_ADMIN_CODE, FIRST_DATA_CODE, Header
from xpmem_emu.xpc.messages import (
    MESSAGES,
    Ack,
    ActivateReq,
    Amo,
    AmoReply,
    Attach,
    AttachReply,
    CloseReply,
    CloseRequest,
    Copy,
    CopyReply,
    DeactivateReq,
    Detach,
    Evict,
    Fault,
    FaultReply,
    FindName,
    FindNameReply,
    Get,
    GetReply,
    Heartbeat,
    Invalidate,
    InvalidateAck,
    Message,
    OpenComplete,
    OpenReply,
    OpenRequest,
    Pending,
    RecallEntry,
    Release,
    RsvdPage,
    RsvdPageRead,
    SyncActState,
)

HEADERS: dict[type[Message], Header] = {
    kind: Header(
        src=7,
        src_incarnation=9 << 16 | 1,
        dst_incarnation=4 << 16 | 2,
        channel=2 if kind.code < FIRST_DATA_CODE else 0,
        number=0x1_0000_0005 if kind.code >= FIRST_ADMIN_CODE else 0,
    )
    for kind in MESSAGES.values()
}

GOLDEN: list[tuple[Message, str]] = [
    (RsvdPageRead(), "98300107ce00090001ce00040002020090"),
    (
        RsvdPage(3, 0, 7, 9, 256, "A", "memory:p7.9", 65536),
        "98300207ce00090001ce0004000202009803000709cd0100a141ab6d656d6f72793a70372e39ce00010000",
    ),
    (ActivateReq(2), "98300307ce00090001ce0004000202009102"),
    (SyncActState(3), "98300407ce00090001ce0004000202009103"),
    (DeactivateReq(26), "98300507ce00090001ce000400020200911a"),
    (Heartbeat(300, False, 3, True), "98300607ce00090001ce00040002020094cd012cc203c3"),
    (
        OpenRequest(0, 0x400000, 128),
        "98300a07ce00090001ce0004000202cf00000001000000059300ce00400000cc80",
    ),
    (OpenReply(0, 64, 64), "98300b07ce00090001ce0004000202cf000000010000000593004040"),
    (OpenComplete(0), "98300c07ce00090001ce0004000202cf00000001000000059100"),
    (CloseRequest(1, 22), "98300d07ce00090001ce0004000202cf0000000100000005920116"),
    (CloseReply(1), "98300e07ce00090001ce0004000202cf00000001000000059101"),
    (Ack(), "98300f07ce00090001ce0004000202cf000000010000000590"),
    (Pending(), "98301007ce00090001ce0004000202cf000000010000000590"),
    (
        Get(0x1000000100001, 0x2000000200001, 2, 1000, [100, 4], False),
        "98302007ce00090001ce0004000200cf000000010000000596cf0001000000100001cf0002000000"
        "20000102cd03e8926404c2",
    ),
    (GetReply(0, "", 1048576), "98302107ce00090001ce0004000200cf00000001000000059300a0ce00100000"),
    (
        Release(0x2000000200001),
        "98302207ce00090001ce0004000200cf000000010000000591cf0002000000200001",
    ),
    (
        Attach(0x2000000200001, 5, -1, 8192),
        "98302307ce00090001ce0004000200cf000000010000000594cf000200000020000105ffcd2000",
    ),
    (
        AttachReply(22, "offset is not aligned"),
        "98302407ce00090001ce0004000200cf00000001000000059216b56f6666736574206973206e6f74"
        "20616c69676e6564",
    ),
    (
        Detach(0x2000000200001, 5, [(0, 2)]),
        "98302507ce00090001ce0004000200cf000000010000000593cf00020000002000010591920002",
    ),
    (
        Fault(0x2000000200001, 17, 1, 49),
        "98302607ce00090001ce0004000200cf000000010000000594cf0002000000200001110131",
    ),
    (
        FaultReply(0, "", 8, [(1, 4711, 48, 0), (49, 9, 1, 1)]),
        "98302707ce00090001ce0004000200cf00000001000000059400a008929401cd126730009431090101",
    ),
    (
        Invalidate(
            [
                RecallEntry(0x1000000100001, 9, [(5, 1), (70, 3)], ""),
                RecallEntry(0x1000000100002, 1, [], "remove"),
            ]
        ),
        "98302807ce00090001ce0004000200cf0000000100000005919294cf000100000010000109929205"
        "01924603a094cf00010000001000020190a672656d6f7665",
    ),
    (InvalidateAck(), "98302907ce00090001ce0004000200cf000000010000000590"),
    (
        Evict(0x1000000100001, [(4, 4)]),
        "98302a07ce00090001ce0004000200cf000000010000000592cf000100000010000191920404",
    ),
    (
        Copy(0x2000000200001, 4096, 65536, True),
        "98302b07ce00090001ce0004000200cf000000010000000594cf0002000000200001cd1000ce00010000c3",
    ),
    (
        CopyReply(14, "not mapped"),
        "98302c07ce00090001ce0004000200cf0000000100000005920eaa6e6f74206d6170706564",
    ),
    (
        Amo(0x2000000200001, 8, 0, 0xFFFFFFFFFFFFFFFF, 0),
        "98302d07ce00090001ce0004000200cf000000010000000595cf00020000002000010800cfffffff"
        "ffffffffff00",
    ),
    (AmoReply(0, "", 41), "98302e07ce00090001ce0004000200cf00000001000000059300a029"),
    (FindName("field"), "98302f07ce00090001ce0004000200cf000000010000000591a56669656c64"),
    (
        FindNameReply(0x1000000100001),
        "98303007ce00090001ce0004000200cf000000010000000591cf0001000000100001",
    ),
]
