"""Tokens of `vkemu step`: where somebody stands, whether or not anything is wrong there.

    vks1.<base64url of MessagePack, then a CRC>

The choices so far, of a file under a policy; and digests of what they mean something to: the test
or scenario, and the kernels.
"""

from __future__ import annotations

import msgspec

from vkemu.record.token import path_of, sealed, unsealed, written

PREFIX = "vks1."


class StepToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    source: str  # a shipped name, a window or a path
    policy: str
    variant: str
    identity: str  # of the test or scenario, as loaded
    model: bytes
    choices: bytes  # as `vkemu.record.token.pack` makes them

    def __str__(self) -> str:
        return sealed(PREFIX, msgspec.structs.replace(self, source=written(self.source)))


def parse(text: str) -> StepToken:
    found = unsealed(PREFIX, text, StepToken)
    return msgspec.structs.replace(found, source=path_of(found.source))
