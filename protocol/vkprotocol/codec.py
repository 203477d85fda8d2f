"""Messages to MessagePack and back, and the frames that carry them.

A frame is one MessagePack `bin 32` object - 0xC6, the length as four bytes, big endian - whose
content is the encoded message. So the length of a frame is known, and refused when it is over the
limit, before a byte of it is kept or decoded; a typed message is decoded once, straight from the
buffer; a first byte that is not 0xC6 shows at once that the peer speaks something else; and the
stream as a whole is still MessagePack, which any Unpacker reads as a row of byte strings. (Framing
by an Unpacker over bare maps would have to decode untyped first to find where a message ends.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from vkprotocol import limits
from vkprotocol.errors import LocalProtocolError
from vkprotocol.messages import AnyMessage, ToGuest, ToHost

BIN32: Final = 0xC6
HEADER: Final = struct.Struct(">BI")


Payload: TypeAlias = bytes | bytearray | memoryview
Decode: TypeAlias = Callable[[Payload], AnyMessage]

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_any: Final[Decode] = msgspec.msgpack.Decoder(AnyMessage).decode
_decode_to_host: Final[Decode] = msgspec.msgpack.Decoder(ToHost).decode
_decode_to_guest: Final[Decode] = msgspec.msgpack.Decoder(ToGuest).decode


def encode(message: AnyMessage) -> bytes:
    """The message as MessagePack, without a frame."""
    return _encode(message)


def decode(payload: Payload, union: Any = AnyMessage) -> AnyMessage:
    """One message of `union` (AnyMessage, ToHost or ToGuest); ValueError when it is none."""
    try:
        if union is ToHost:
            return _decode_to_host(payload)
        if union is ToGuest:
            return _decode_to_guest(payload)
        return _decode_any(payload)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def frame(message: AnyMessage) -> bytes:
    """The message in its frame. LocalProtocolError when the peer could not accept it."""
    try:
        payload = _encode(message)
        # Structs are not checked when made: what we send must be what a peer takes.
        _decode_any(payload)
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        raise LocalProtocolError(f"{type(message).__name__} cannot be sent: {error}") from None
    if len(payload) > limits.FRAME_BYTES:
        raise LocalProtocolError(
            f"{type(message).__name__} takes {len(payload)} bytes, "
            f"a frame holds {limits.FRAME_BYTES}"
        )
    return HEADER.pack(BIN32, len(payload)) + payload
