"""Small numbers as few bytes: LEB128, unsigned, as the schedules of tokens are written."""

from __future__ import annotations

from collections.abc import Iterator


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def varints(raw: bytes) -> Iterator[int]:
    """The numbers in `raw`; OverflowError for one of more than 64 bits, or cut short."""
    number = shift = 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise OverflowError("a number too large")
        if not byte & 0x80:
            yield number
            number = shift = 0
    if shift:
        raise OverflowError("cut in the middle of a number")
