"""The bytes of every message, kept: a change of the wire shows as a change of these files.

`VKEMU_REGENERATE=1 pytest tests/protocol/test_golden.py` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack
import pytest
from vkprotocol.codec import decode, encode, frame

from tests.protocol.examples import EXAMPLES
from tests.protocol.strategies import MESSAGES, tag_of

GOLDEN = Path(__file__).with_name("golden")


@pytest.mark.parametrize("name", EXAMPLES)
def test_bytes_are_as_they_were(name: str) -> None:
    file = GOLDEN / f"{name}.msgpack"
    if os.environ.get("VKEMU_REGENERATE"):
        file.write_bytes(frame(EXAMPLES[name]))

    assert frame(EXAMPLES[name]) == file.read_bytes()


@pytest.mark.parametrize("name", EXAMPLES)
def test_bytes_give_the_message(name: str) -> None:
    golden = (GOLDEN / f"{name}.msgpack").read_bytes()

    assert decode(golden[5:]) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_another_codec_reads_the_stream_and_writes_the_same(name: str) -> None:
    unpacker = msgpack.Unpacker()
    unpacker.feed((GOLDEN / f"{name}.msgpack").read_bytes())
    payload: bytes = unpacker.unpack()
    fields: dict[str, Any] = msgpack.unpackb(payload)

    assert fields["type"] == name.partition(".")[0]
    assert msgpack.packb(fields) == payload
    assert msgpack.packb(payload)[-len(payload) :] == encode(EXAMPLES[name])


def test_every_message_has_a_golden_file_and_every_file_a_message() -> None:
    kinds = {type(message) for message in EXAMPLES.values()}

    assert kinds == set(MESSAGES)
    assert {tag_of(kind) for kind in MESSAGES} == {name.partition(".")[0] for name in EXAMPLES}
    assert {file.stem for file in GOLDEN.iterdir()} == set(EXAMPLES)
