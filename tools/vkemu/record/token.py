"""Replay tokens: what it takes to run one schedule again, as one word that can be pasted.

    vk1.<base64url of MessagePack, then a CRC>

A token names the scenario and says which one it was (a digest of its meaning) and which code ran
it (a digest of the kernels' sources), so that a changed scenario or kernel is recognised instead
of misreplayed. A random schedule is its seed; a searched one is its choices, run-length coded.
Either way the token holds a checksum of the whole schedule.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shlex
import zlib
from array import array
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec
import vkprotocol

import vkguest
import vkhost
from vkemu.varint import varint, varints
from vkemu.verdict import UsageError

PREFIX = "vk1."
DIGEST_BYTES = 6
PASTED_MAX = 500  # characters; a longer token is offered as a file
T = TypeVar("T")


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The contents. `choices` is empty when `strategy` makes them from `seed`."""

    scenario: str  # a shipped name or a path
    scenario_digest: bytes
    model_digest: bytes
    settings: tuple[str, ...]  # what --set, --policy and the like laid over the file
    strategy: str
    seed: int
    steps: int
    schedule_crc: int
    choices: bytes = b""

    def __str__(self) -> str:
        return sealed(PREFIX, msgspec.structs.replace(self, scenario=written(self.scenario)))


def written(path: str) -> str:
    """A path as a token has it, whatever its bytes: those that are no UTF-8 as digits."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"\0{os.fsencode(path).hex()}"
    return path


def path_of(word: str) -> str:
    """What `written` was given."""
    if not word.startswith("\0"):
        return word
    try:
        return os.fsdecode(bytes.fromhex(word[1:]))
    except ValueError:
        raise UsageError("token: damaged, the path in it cannot be read") from None


def sealed(prefix: str, content: msgspec.Struct) -> str:
    """As it is printed: the prefix, then content and checksum in letters, digits, - and _."""
    payload = msgspec.msgpack.encode(content)
    checked = payload + zlib.crc32(payload).to_bytes(4, "big")
    return prefix + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def in_a_file(word: str, name: str) -> str:
    """A file of the working directory with a token too long to be pasted, quoted for a shell;
    nothing, when it is short or cannot be written."""
    if len(word) <= PASTED_MAX:
        return ""
    path = Path(f"{name}-{zlib.crc32(word.encode()):08x}.token")
    try:
        path.write_text(f"{word}\n")
    except OSError:
        return ""
    return shlex.quote(str(path))


def parse(text: str) -> Token:
    found = unsealed(PREFIX, text, Token)
    return msgspec.structs.replace(found, scenario=path_of(found.scenario))


def unsealed(prefix: str, text: str, kind: type[T]) -> T:
    """UsageError says what is wrong with a token that was not printed by `sealed`."""
    text = text.strip()
    if not text.startswith(prefix):
        raise UsageError(f"token: does not start with {prefix!r}, expected one printed by vkemu")
    body = text.removeprefix(prefix)
    token_chars = 1 << 20
    if len(body) > token_chars:
        raise UsageError(f"token: {len(body)} characters, expected at most {token_chars}")
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("token: damaged, expected letters, digits, - and _") from None
    payload, check = raw[:-4], raw[-4:]
    if zlib.crc32(payload).to_bytes(4, "big") != check:
        raise UsageError("token: damaged or cut short, its checksum does not match")
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.MsgspecError:
        raise UsageError("token: made by another version of vkemu") from None


@cache
def model_digest() -> bytes:
    """Which code decides what a schedule does: the kernels, the protocol and the executor."""
    vkemu = Path(__file__).parents[1]
    files = [vkemu / "executors" / f"{name}.py" for name in ("controlled", "chance", "any_timer")]
    files.append(vkemu / "launch" / "assemble.py")
    for package in (vkprotocol, vkhost, vkguest):
        assert package.__file__ is not None
        root = Path(package.__file__).parent
        files += sorted(root.rglob("*.py"), key=lambda file: file.relative_to(root).as_posix())
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.digest()[:DIGEST_BYTES]


def schedule_crc(choices: array[int]) -> int:
    """Equal for equal schedules, on any machine."""
    return zlib.crc32(array("H", choices).tobytes())


def pack(choices: array[int]) -> bytes:
    """Runs of (thread, steps), compressed: short when there are few context switches."""
    runs = bytearray()
    start = 0
    for end in range(1, len(choices) + 1):
        if end == len(choices) or choices[end] != choices[start]:
            runs += varint(choices[start]) + varint(end - start)
            start = end
    return zlib.compress(bytes(runs), 9)


def unpack(packed: bytes) -> array[int]:
    """What `pack` was given; UsageError for what it cannot have made."""
    choices: array[int] = array("H")
    choices_max = 50_000_000
    try:
        numbers = varints(zlib.decompress(packed, bufsize=1 << 16))
        for tid in numbers:
            count = next(numbers)
            if len(choices) + count > choices_max:
                raise UsageError(f"token: more than {choices_max} choices")
            choices.extend(array("H", [tid]) * count)
    except (zlib.error, StopIteration, OverflowError, RuntimeError):
        raise UsageError("token: its schedule is damaged") from None
    return choices
