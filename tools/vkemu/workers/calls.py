"""Many calls of one function, each on its own: what a matrix, a hunt and a run of seeds are.

Answers come in the order of the questions, whoever is done first. Those that are known when the
user interrupts are kept; with a file, so that the same questions go on from there another day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from vkemu.workers.answers import Answers
from vkemu.workers.job import Kept, Workers, count_of, portable

AHEAD = 2  # jobs for each worker, so that none waits for us


class Answer(NamedTuple):
    number: int
    value: Any = None
    error: BaseException | None = None


class Call(NamedTuple):
    """`function` is one of a module's own; `number` the place of its question."""

    number: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def perform(self, kept: Kept) -> Answer:
        try:
            return Answer(self.number, self.function(*self.arguments))
        except Exception as error:
            return Answer(self.number, error=portable(error))


def answered(
    function: Callable[..., Any],
    questions: Sequence[tuple[Any, ...]],
    workers: Workers,
    *,
    first: Sequence[int] = (),
    known: Answers | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Iterator[Any]:
    """The answers, in order. `first` are the places of questions to be asked before others; `tell`
    hears how many are answered, and how many workers there are."""
    found: dict[int, Any] = {} if known is None else dict(known.values)
    answered_before = frozenset(found)
    early = dict.fromkeys(first)
    later = (place for place in range(len(questions)) if place not in early)
    left = (place for place in chain(early, later) if place not in answered_before)
    under_way = 0
    given = 0
    done = len(found)
    while given < len(questions):
        free = max(0, AHEAD * count_of(workers) - under_way)
        for place in islice(left, free):
            workers.submit(Call(place, function, questions[place]))
            under_way += 1
        if given not in found:
            for number, value, error in (_whole(report) for report in workers.results()):
                under_way -= 1
                if error is not None:
                    raise error
                found[number] = value
                done += 1
                if known is not None:
                    known.add(number, value)
        if tell is not None:
            tell(done, count_of(workers))
        while given in found:
            yield found.pop(given)
            given += 1


def _whole(report: Any) -> tuple[int, Any, BaseException | None]:
    return report.number, getattr(report, "value", None), report.error
