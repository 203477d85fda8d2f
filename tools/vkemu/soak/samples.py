"""How a host does, again and again, and whether anything of it grows."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from msgspec import Struct

ENOUGH_SECONDS: Final = 30.0  # less says nothing of growth
# Of what must not grow: what it may differ by in any case, for noise.
SLACK: Final = {"resident_bytes": 8 << 20, "threads": 16, "descriptors": 4, "queued": 256}


class Sample(Struct, frozen=True, kw_only=True):
    """At `seconds` after the start. `latency`, `worst`: seconds the probe has waited, median and
    maximum since the sample before; `queued`: requests not answered; `unsent`: bytes."""

    seconds: float
    resident_bytes: int
    threads: int
    descriptors: int
    guests: int
    queued: int
    unsent: int
    free_pages: int
    served: int
    latency: float
    worst: float


def sample(
    seconds: float, status: dict[str, Any], free: int, descriptors: int, waits: Sequence[float]
) -> Sample:
    guests = status["guests"]
    return Sample(
        seconds=round(seconds, 3),
        resident_bytes=status["resident_bytes"],
        threads=status["threads"],
        descriptors=descriptors,
        guests=len(guests),
        queued=sum(guest["outstanding"] for guest in guests),
        unsent=sum(guest["unsent_bytes"] for guest in guests),
        free_pages=free,
        served=status["served"],
        latency=median(waits) if waits else 0.0,
        worst=max(waits, default=0.0),
    )


def judgeable(samples: Sequence[Sample]) -> bool:
    return len(samples) >= 9 and samples[-1].seconds >= ENOUGH_SECONDS


def growth(samples: Sequence[Sample]) -> list[str]:
    """What is more in the last third of the time than in the one before, by more than noise."""
    end = samples[-1].seconds if samples else 0.0
    warm = 1 / 3  # of the time: what is made once is made by then
    middle = [s for s in samples if end * warm <= s.seconds < 2 * end * warm]
    last = [s for s in samples if s.seconds >= 2 * end * warm]
    if not middle or not last:
        return []
    found = []
    factor = 1.10
    for what, slack in SLACK.items():
        before, after = (median(getattr(s, what) for s in part) for part in (middle, last))
        if after > max(before * factor, before + slack):
            found.append(f"{what} grows: {before:,.0f}, then {after:,.0f}")
    return found
