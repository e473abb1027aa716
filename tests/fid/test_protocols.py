"""Protocols by their names and by the tools' names."""

import pytest

from inception.fid.bridge import UserError
from inception.fid.protocols import PROTOCOLS, TOOLS, Protocol, find_protocol
from inception.fid.resize import KINDS


def test_every_name_finds_a_protocol():
    for name in (*PROTOCOLS, *TOOLS, "PyTorch-FID"):
        assert find_protocol(name) in PROTOCOLS.values()
    assert find_protocol("adm").name == "tensorflow"
    assert find_protocol("clean-fid").name == "clean"
    assert {protocol.resize for protocol in PROTOCOLS.values()} <= KINDS.keys()


def test_a_protocol_of_ones_own_is_taken_as_it_is():
    own = Protocol("own", "pillow_bicubic", 127.5, 127.5)
    assert find_protocol(own) is own


def test_an_unknown_name_is_answered_with_those_there():
    with pytest.raises(UserError, match=r"'fidjax' is unknown.*tensorflow.*clean-fid"):
        find_protocol("fidjax")
