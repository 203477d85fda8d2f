"""Footprints: which shared objects a step touches, in numbers.

A footprint is a tuple of codes, `2 * object + write`. Objects are numbered by key, for as long as
the exploration lasts. Two are dependent iff they share an object that one of them writes.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from vkprotocol.effects import Effect, Key, Shared

Footprint: TypeAlias = tuple[int, ...]

# Object 0 is what `always` sees. A write to an object that a predicate reads writes it too, so
# that no two states the predicate can tell apart are taken for one.
VIEW: Final = 0
SEEN: Final = 2 * VIEW + 1


class Objects:
    """Numbers for keys, and the footprints of effects."""

    __slots__ = ("_computed", "_numbers", "_seen", "all_seen", "keys", "ordered", "single")

    def __init__(self) -> None:
        self._numbers: dict[Key, int] = {}
        self.keys: list[Key] = []  # by number
        self._seen: set[int] = set()
        self._computed: dict[type[Effect], bool] = {Effect: False}
        self.all_seen = False
        self.ordered: dict[Key, None] = {}  # whose loads are taken for writes
        # By code: the footprint of an effect on that object alone.
        self.single: list[Footprint] = []
        self.number_of(("view of always",))

    def __len__(self) -> int:
        return len(self.single) // 2

    def number_of(self, key: Key) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.keys)
            self.keys.append(key)
            self.single += [(2 * number,), (2 * number + 1,)]
            if self.all_seen:
                self._see(number)
        return number

    def _see(self, number: int) -> None:
        self._seen.add(number)
        write = 2 * number + 1
        self.single[write] = (write, SEEN)
        if self.keys[number] in self.ordered:
            self.single[write - 1] = self.single[write]
        elif self.all_seen:
            self.single[write - 1] = (write - 1, SEEN)

    def see(self, shared: Shared) -> bool:
        """A predicate reads `shared`. True when that was not known."""
        number = self.number(shared)
        if number in self._seen:
            return False
        self._see(number)
        return True

    def see_all(self) -> None:
        """A predicate reads who knows what: every step may change what it says."""
        self.all_seen = True
        for number in range(1, len(self)):
            self._see(number)

    def order(self, key: Key) -> bool:
        """The loads of an object change it, nobody knows how: they are writes. True when new."""
        load = 2 * self.number_of(key)
        if key in self.ordered:
            return False
        self.ordered[key] = None
        self.single[load] = self.single[load + 1]
        return True

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
