"""Tokens: a failing schedule as one word that can be pasted.

    vkx1.<base64url of: body, CRC-32 of body>

The body is a list of small numbers, compressed where that helps: a digest of the failure's message
(and whether it is that there is no end), then for every run of steps of one thread the thread, how
many steps, and a digest of what they did: operations, objects, and the values left there when they
are plain. So a token made for another program, or for the same one before it was changed, is
recognised at the first run of steps that differs. Threads are numbered in the order they are
spawned in this very schedule.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any, Final, NamedTuple

from vkprotocol.effects import Effect, Thread, key_text

from vkemu.exploration.result import TokenError
from vkemu.exploration.stepwise import plain
from vkemu.varint import varint, varints

PREFIX: Final = "vkx1."
STEPS_MAX: Final = 10_000_000


class Stretch(NamedTuple):
    """Consecutive steps of one thread."""

    thread: int
    steps: int
    digest: int


class Token(NamedTuple):
    message: int  # digest of the failure's message
    cut: bool  # the failure is that it goes on
    stretches: tuple[Stretch, ...]

    @property
    def schedule(self) -> list[int]:
        return [stretch.thread for stretch in self.stretches for _ in range(stretch.steps)]

    def __str__(self) -> str:
        plain = bytearray(varint(2 * self.message + self.cut))
        for stretch in self.stretches:
            for number in stretch:
                plain += varint(number)
        packed = zlib.compress(bytes(plain), 9)
        body = b"z" + packed if len(packed) < len(plain) else b"p" + bytes(plain)
        checked = body + zlib.crc32(body).to_bytes(4, "big")
        return PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def parse(text: str) -> Token:
    text = text.strip()
    if not text.startswith(PREFIX):
        raise TokenError(f"not a token of this version: expected {PREFIX}... as printed by explore")
    body = text.removeprefix(PREFIX)
    chars_max = 1 << 20
    if len(body) > chars_max:
        raise TokenError(f"token of {len(body)} characters: expected at most {chars_max}")
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenError("damaged token: expected letters, digits, - and _") from None
    packed, check = raw[:-4], raw[-4:]
    if len(raw) < 5 or zlib.crc32(packed).to_bytes(4, "big") != check:
        raise TokenError("damaged token, or cut short: its checksum does not match")
    plain_max = 1 << 22
    try:
        inflate = zlib.decompressobj()
        plain = inflate.decompress(packed[1:], plain_max) if packed[:1] == b"z" else packed[1:]
        if inflate.unconsumed_tail:
            raise TokenError(f"token of more than {plain_max} bytes, unpacked")
        numbers = list(varints(plain))
    except (zlib.error, OverflowError):
        raise TokenError("damaged token: its schedule cannot be read") from None
    if len(numbers) % 3 != 1:
        raise TokenError("damaged token: its schedule is cut short")
    stretches = tuple(Stretch(*numbers[i : i + 3]) for i in range(1, len(numbers), 3))
    if not all(stretch.steps for stretch in stretches):
        raise TokenError("damaged token: its schedule has a thread that takes no step")
    if sum(stretch.steps for stretch in stretches) > STEPS_MAX:
        raise TokenError(f"token of more than {STEPS_MAX} steps")
    return Token(numbers[0] >> 1, bool(numbers[0] & 1), stretches)


def digest_of(text: str) -> int:
    return zlib.crc32(text.encode(errors="surrogatepass")) & 0xFFFFFFF


class Fingerprint:
    """Digests of what a schedule does, stretch by stretch, while it is taken."""

    def __init__(self) -> None:
        self._crc = 0
        self._thread = -1
        self._steps = 0
        self.stretches: list[Stretch] = []

    def step(self, number: int, thread: Thread, effect: Effect, before: Any, after: Any) -> None:
        if number != self._thread:
            self.close()
            self._thread = number
        self._steps += 1
        values = f"{before!r}>{after!r}" if plain(before) and plain(after) else ""
        what = f"{thread.name} {effect.op} {key_text(effect.obj.key)} {values}\n"
        self._crc = zlib.crc32(what.encode(errors="surrogatepass"), self._crc)

    def close(self) -> None:
        if self._steps:
            # The CRC runs on, so that a stretch also vouches for the ones before it.
            self.stretches.append(Stretch(self._thread, self._steps, self._crc & 0x3FFF))
            self._steps = 0
