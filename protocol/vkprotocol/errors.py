"""Whose fault it is: ours (LocalProtocolError) or the peer's (RemoteProtocolError)."""

from __future__ import annotations


class ProtocolError(Exception):
    """Somebody broke the protocol: see LocalProtocolError and RemoteProtocolError."""

    def __init__(self, *args: object) -> None:
        if type(self) is ProtocolError:
            raise TypeError("ProtocolError is LocalProtocolError (ours) or RemoteProtocolError")
        super().__init__(*args)


class LocalProtocolError(ProtocolError):
    """We tried to send something the protocol does not allow; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol does not allow. The connection is of no use any more.

    `offset` counts the bytes of the stream up to the frame (or byte) that is wrong; `expected`
    says what should have been there.
    """

    def __init__(self, offset: int, expected: str, got: str) -> None:
        self.offset = offset
        self.expected = expected
        self.got = got
        super().__init__(f"byte {offset}: expected {expected}, got {got}")
