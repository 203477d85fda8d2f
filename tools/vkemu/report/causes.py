"""Happens-before as arrows: for every step the latest steps of other actors it had to wait for."""

from __future__ import annotations

from vkemu.report.recording import Step


def causes(steps: list[Step]) -> list[list[int]]:
    """By step number, the steps of other actors that happen immediately before it.

    Immediately: not before another of them, nor before the actor's own previous step.
    """
    by_count: dict[str, dict[int, Step]] = {}
    previous: dict[str, dict[str, int]] = {}
    found: list[list[int]] = []
    for step in steps:
        clock = step.clock
        found.append([])
        if not clock:
            continue
        known = previous.get(step.actor, {})
        news = [
            by_count[actor][count]
            for actor, count in clock.items()
            if actor != step.actor
            and count > known.get(actor, 0)
            and count in by_count.get(actor, {})
        ]
        found[-1] = [
            other.number
            for other in news
            if not any(
                third is not other and third.clock.get(other.actor, 0) >= other.clock[other.actor]
                for third in news
            )
        ]
        by_count.setdefault(step.actor, {})[clock[step.actor]] = step
        previous[step.actor] = clock
    return found
