"""Footprints: which shared objects a step touches, in numbers.

A footprint is a tuple of codes, `2 * object + write`. Objects are numbered by key, for as long as
the exploration lasts. Two are dependent iff they share an object that one of them writes.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from vkprotocol.effects import Effect, Key, Shared, key_text

from vkemu.exploration.own import CANCEL, Own

Footprint: TypeAlias = tuple[int, ...]
# (first, second, tid, footprint, past, without): step `second` of thread `tid` could have come
# before event `first`. `second` is an event, or `len(trace)` for the step of a thread that could
# not go on. `footprint` is None where event `first` may have decided it; `past` is what the step
# happens after whatever it touches; `without` are later events that have to wait for it too.
# A plain tuple: there are a dozen of them an execution.
Race: TypeAlias = tuple[int, int, int, Footprint | None, int, tuple[int, ...]]

# Object 0 is what `always` sees. A write to an object that a predicate reads writes it too, so
# that no two states the predicate can tell apart are taken for one.
VIEW: Final = 0
SEEN: Final = 2 * VIEW + 1
# How the keys of what is no object begin.
STANDING: Final = (Own("view of always"), Own("looked at"))


class Learned(NamedTuple):
    """What a search has found out about objects, as their keys: for another process."""

    all_seen: str = ""
    seen: tuple[tuple[Key, bool], ...] = ()
    ordered: tuple[Key, ...] = ()
    exposed: tuple[Key, ...] = ()
    cancelled: tuple[Key, ...] = ()
    unsure: bool = False
    whole: tuple[Key, ...] = ()
    loose: bool = False
    ended: str = ""

    def remarks(self) -> list[str]:
        """Why the search is larger than it had to be, or what it does not know."""
        found = [why for why in (self.all_seen, self.ended) if why]
        return found + [
            f"{key_text(key)} is read by a thread without an effect, while others may write it: "
            "every step counts as a reader; await its load, or read it when they are done"
            for key in self.exposed
            if key[0] != CANCEL  # of a thread that `k` has not made
        ]


class Objects:
    """Numbers for keys, and the footprints of effects."""

    __slots__ = (
        "_computed",
        "_numbers",
        "all_seen",
        "cancelled",
        "ended",
        "exposed",
        "extent",
        "keys",
        "loose",
        "ordered",
        "seen",
        "single",
        "unsure",
        "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self._numbers: dict[Key, int] = {}
        self.keys: list[Key] = []  # by number
        self._computed: dict[type[Effect], bool] = {Effect: False}
        self.all_seen = ""  # why a predicate reads who knows what, when one does
        self.seen: dict[Key, bool] = {}  # by predicates; True: its loads change it
        self.ordered: dict[Key, None] = {}  # whose loads are taken for writes
        # Objects that threads read without an effect, with every step; and what stands for them
        # there, as VIEW does for what predicates see: a guard asks the object itself.
        self.exposed: dict[Key, int] = {}
        # Of threads that somebody cancels: their steps say that they may have been (`scopes`).
        self.cancelled: dict[Key, None] = {}
        self.extent = 0  # of both: how often there was one more
        self.unsure = False  # guards read what no footprint says
        self.loose = False  # what is held may be changed where it is: see `contents`
        self.ended = ""  # why not all is known of what `at_end` sees: see `ending`
        # Dicts of async programs that somebody looks at as a whole.
        self.whole: dict[Key, None] = {}
        # By code: the footprint of an effect on that object alone.
        self.single: list[Footprint] = []
        self.number_of((STANDING[0],))

    def __len__(self) -> int:
        return len(self.single) // 2

    def number_of(self, key: Key) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.keys)
            self.keys.append(key)
            self.single += [(2 * number,), (2 * number + 1,)]
            if self.all_seen or self.exposed or key in self.seen or key in self.ordered:
                self._compute(number)
        return number

    def _compute(self, number: int) -> None:
        """What an effect on an object also touches."""
        key = self.keys[number]
        if key[0] in STANDING:
            return
        load = 2 * number
        seen = (SEEN,) if self.all_seen or key in self.seen else ()
        # A write of an exposed object writes what every step reads.
        looked = tuple(2 * stands for stands in self.exposed.values())
        written = tuple(2 * stands + (of == key) for of, stands in self.exposed.items())
        self.single[load + 1] = (load + 1, *seen, *written)
        if key in self.ordered:
            self.single[load] = self.single[load + 1]
        else:
            changing = seen if self.all_seen or self.seen.get(key) else ()
            self.single[load] = (load, *changing, *looked)

    def _compute_all(self) -> None:
        for number in range(len(self)):
            self._compute(number)

    def see(self, shared: Shared) -> bool:
        """A predicate reads `shared`. True when that was not known.

        A load that changes it, in whatever order with others, is a write for who looks.
        """
        number = self.number(shared)
        if shared.key in self.seen:
            return False
        self.seen[shared.key] = hasattr(shared, "commute")
        self._compute(number)
        return True

    def count(self, shared: Shared) -> bool:
        """Whatever is done to it changes what a predicate sees. True when new."""
        number = self.number(shared)
        if self.seen.get(shared.key) or self.all_seen:
            return False
        self.seen[shared.key] = True
        self._compute(number)
        return True

    def see_all(self, why: str) -> None:
        """A predicate reads who knows what: every step may change what it says."""
        self.all_seen = why
        self._compute_all()

    def order(self, key: Key) -> bool:
        """The loads of an object change it, nobody knows how: they are writes. True when new."""
        number = self.number_of(key)
        if key in self.ordered:
            return False
        self.ordered[key] = None
        self._compute(number)
        return True

    def expose(self, key: Key) -> bool:
        """Threads read an object without saying so: every step may have. True when new."""
        if key in self.exposed:
            return False
        self.exposed[key] = self.number_of((STANDING[1], key))
        self.extent += 1
        self._compute_all()
        return True

    def cancel(self, key: Key) -> None:
        """Somebody cancels the thread with this cancellation: from its beginning, the next time."""
        self.cancelled[key] = None
        self.extent += 1

    def doubt(self, why: str) -> None:
        """What a guard said at an earlier step is not known."""
        self.unsure = True
        self.see_all(self.all_seen or why)

    def learned(self) -> Learned:
        seen = tuple(self.seen.items())
        ordered, exposed = tuple(self.ordered), tuple(self.exposed)
        cancelled = tuple(self.cancelled)
        whole = tuple(self.whole)
        return Learned(
            self.all_seen, seen, ordered, exposed, cancelled, self.unsure, whole, self.loose,
            self.ended,
        )  # fmt: skip

    def learn(self, known: Learned) -> None:
        """What another process has found out."""
        self.all_seen = self.all_seen or known.all_seen
        self.seen.update(known.seen)
        self.ordered.update(dict.fromkeys(known.ordered))
        self.cancelled.update(dict.fromkeys(known.cancelled))
        self.whole.update(dict.fromkeys(known.whole))
        self.unsure = self.unsure or known.unsure
        self.loose = self.loose or known.loose
        self.ended = self.ended or known.ended
        for key in known.exposed:
            self.exposed[key] = self.number_of((STANDING[1], key))
        self._compute_all()

    def number(self, shared: Shared) -> int:
        number = shared.index
        if number < 0:
            number = shared.index = self.number_of(shared.key)
        return number

    def footprint(self, effect: Effect) -> Footprint:
        """Of this moment, when the effect computes its objects."""
        codes = self.single[2 * self.number(effect.obj) + effect.write]
        also = effect.also
        if not also:
            return codes
        for shared, write in also:
            codes += self.single[2 * self.number(shared) + write]
        # Every object once, as written when it is both.
        unique = dict.fromkeys(codes)
        return tuple(code for code in unique if code & 1 or code + 1 not in unique)

    def computed(self, effect: Effect) -> bool:
        """Whether the footprint depends on the state of the moment."""
        kind = type(effect)
        known = self._computed.get(kind)
        if known is None:
            names = ("obj", "write", "also")
            known = any(getattr(kind, name) is not getattr(Effect, name) for name in names)
            self._computed[kind] = known
        return known


def dependent(one: Footprint, other: Footprint) -> bool:
    for a in one:
        for b in other:
            if (a ^ b) < 2 and (a | b) & 1:
                return True
    return False
