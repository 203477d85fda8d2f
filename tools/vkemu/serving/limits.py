"""What a live host gives to one guest and to all of them: every bound by its name.

`vkemu serve --limit NAME=VALUE`. Each is answered when it is reached: by an errno of the request,
by a refusal that says which it is, or by not reading on from who has enough outstanding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from vkprotocol import limits

# Name -> (least, most, what it bounds and how it shows).
LIMITS: Final = {
    "guests": (1, 4096, "guests at a time; EPROCLIM beyond"),
    "peers": (1, 65536, "peers that have not said Hello; the one that waits longest is sent away"),
    "memory": (1 << 12, limits.RAM_BYTES, "bytes of RAM of a guest; ENOMEM beyond"),
    "vcpus": (1, limits.VCPUS, "virtual CPUs of a guest; EAGAIN beyond"),
    "vmspaces": (1, limits.VMSPACES_PER_PROCESS, "vmspaces of a guest; ENOMEM beyond"),
    "entries": (4, 1 << 20, "entries of a map (vm.max_proc_mmap); ENOMEM beyond"),
    "outstanding": (1, 4096, "requests of a guest not answered; it is not read from meanwhile"),
    "unsent": (1 << 10, 1 << 26, "bytes a guest has not read; it is not read from meanwhile"),
    "share": (1, 100, "of the processor beside other guests: the weight of its turn"),
}


class Limits(msgspec.Struct, frozen=True):
    """In the units that LIMITS says. The descriptors of the process bound guests and peers too."""

    guests: int = 256
    peers: int = 64
    memory: int = limits.RAM_BYTES
    vcpus: int = limits.VCPUS
    vmspaces: int = 1024
    entries: int = 65536
    outstanding: int = 128
    unsent: int = 1 << 20
    share: int = 1

    def __post_init__(self) -> None:
        for name, (low, high, _) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}={value}, expected {low} to {high}")


def parse_limits(texts: Iterable[str]) -> Limits:
    """NAME=VALUE each. ValueError, in a line."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in LIMITS:
            raise ValueError(f"{text!r}, expected one of {', '.join(LIMITS)}, as guests=16")
        if not equals or not value.isascii() or not value.isdigit() or len(value) > 20:
            raise ValueError(f"{text!r}, expected a number, as {name}=16")
        values[name] = int(value)
    return Limits(**values)
