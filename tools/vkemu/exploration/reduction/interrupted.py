"""Threads that are cancelled: had the cancellation come later, they would have done what they had
announced, where they did not have to wait for it.
"""

from __future__ import annotations

from vkemu.exploration.primitives.scopes import Interruption
from vkemu.exploration.reduction import several
from vkemu.exploration.reduction.footprint import Footprint


def meet(
    trace: several.Trace, tid: int, effect: Interruption, footprint: Footprint, past: int, met: int
) -> int:
    """Note the races of a new event, as `Trace._meet`. Its clock."""
    n = len(trace.tids)
    cancellation, _ = effect.also[0]
    cancels = trace.rivals[2 * trace.objects.number(cancellation)] & ~past & ((1 << n) - 1)
    first = (cancels & -cancels).bit_length() - 1  # to others it was cancelled already
    clock = past
    while met:
        rival = met.bit_length() - 1
        if rival == first and effect.was is not None:
            trace.races += several.waiting(trace, tid, effect.was, past, n, 1 << first)
        else:
            trace.races.append((rival, n, tid, footprint, past, ()))
        clock |= trace.clocks[rival]
        met &= ~clock
    return clock
