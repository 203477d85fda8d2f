"""Tokens of `vkemu step`: where somebody stands, whether or not anything is wrong there.

    vks1.<base64url of MessagePack, then a CRC>

The choices so far, of a file under a policy; and digests of what they mean something to: the test
or scenario, and the kernels.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import msgspec

from vkemu.verdict import UsageError

PREFIX = "vks1."
CHARS_MAX = 1 << 20


class StepToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    source: str  # a shipped name, a window or a path
    policy: str
    variant: str
    identity: str  # of the test or scenario, as loaded
    model: bytes
    choices: bytes  # as `vkemu.token.pack` makes them

    def __str__(self) -> str:
        payload = msgspec.msgpack.encode(self)
        checked = payload + zlib.crc32(payload).to_bytes(4, "big")
        return PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def parse(text: str) -> StepToken:
    body = text.strip().removeprefix(PREFIX)
    if len(body) > CHARS_MAX:
        raise UsageError(f"token: {len(body)} characters, expected at most {CHARS_MAX}")
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("token: damaged, expected letters, digits, - and _") from None
    payload, check = raw[:-4], raw[-4:]
    if zlib.crc32(payload).to_bytes(4, "big") != check:
        raise UsageError("token: damaged or cut short, its checksum does not match")
    try:
        return msgspec.msgpack.decode(payload, type=StepToken)
    except msgspec.MsgspecError:
        raise UsageError("token: made by another version of vkemu") from None
