"""Tokens of litmus failures: which test, policy and variant, and the schedule's own token.

vkl1.<base64url of JSON [file, policy, variant, identity]>.<vkx1...>; a fifth word is the tree, if
one was asked for
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Annotated

import msgspec

from vkemu.litmus.file import Litmus, load_litmus
from vkemu.record.token import path_of, written
from vkemu.verdict import UsageError

PREFIX = "vkl1."
Head = Annotated[list[str], msgspec.Meta(min_length=4, max_length=5)]


@dataclass(frozen=True, slots=True)
class LitmusToken:
    """`source` is a path or the name of a shipped test."""

    source: str
    policy: str
    variant: str
    identity: str
    schedule: str
    tree: str = ""

    def __str__(self) -> str:
        words = [written(self.source), self.policy, self.variant, self.identity]
        head = msgspec.json.encode([*words, self.tree] if self.tree else words)
        return f"{PREFIX}{base64.urlsafe_b64encode(head).decode().rstrip('=')}.{self.schedule}"

    def litmus(self) -> Litmus:
        """The test it was made of; UsageError when that has changed or is not there."""
        litmus = load_litmus(self.source, self.variant, self.tree)
        if identity(litmus) != self.identity:
            raise UsageError(
                f"replay: {self.source} has changed since this token was made, expected the same "
                "test (explore it again)"
            )
        return litmus


def identity(litmus: Litmus) -> str:
    """What the test means, whatever its comments and layout, and whatever switches there are that
    it does not touch: one more makes no other test of it."""
    file = msgspec.to_builtins(litmus.file)
    if "quirks" in file:
        file["quirks"] = {
            name: value for name, value in file["quirks"].items() if value is not None
        }
    return hashlib.sha256(msgspec.json.encode(file)).hexdigest()[:12]


def parse(text: str) -> LitmusToken:
    match = re.fullmatch(r"vkl1\.([\w-]+)\.(vkx\d+\.[\w-]+)", text.strip())
    if match is None:
        raise UsageError("replay: damaged token, expected vkl1.WORD.vkx1.WORD as it was printed")
    try:
        head = base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
        source, policy, variant, digest, *tree = msgspec.json.decode(head, type=Head)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise UsageError("replay: damaged token, its first word cannot be read") from None
    return LitmusToken(path_of(source), policy, variant, digest, match[2], *tree)
