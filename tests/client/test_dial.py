"""What somebody says whom a console turned away without a word."""

import errno

import pytest
import zmq

from xpmem_emu.client.dial import Dial
from xpmem_emu.cluster.keys import Credentials, Pair


@pytest.mark.parametrize(
    ("keyed", "first", "remedy"),
    [(False, "we showed no key", "XPMEM_EMU_KEYS"), (True, "our key", "xpmem-emu keys ls")],
)
def test_a_full_console_is_among_the_reasons_whatever_was_shown(
    keyed: bool, first: str, remedy: str
) -> None:
    (public, secret), (server, _) = zmq.curve_keypair(), zmq.curve_keypair()
    dial = Dial("tcp://127.0.0.1:1", Credentials(Pair(public, secret), server) if keyed else None)
    refusal = dial.refusal()
    dial.give_up()
    assert refusal.errno == errno.ECONNREFUSED
    assert first in str(refusal)
    assert "as many connections as the partition can have" in str(refusal)
    assert remedy in str(refusal)
