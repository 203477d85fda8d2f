"""The oracle: an omniscient observer that consumes events and says when an invariant breaks.

It stands outside the model. It shares no state with the kernel, so what the kernel overlooks it
does not; and it needs nothing but events, so it judges a recorded log as well as a run.

    oracle = Oracle()
    kernel = Kernel(config, policy, spawn, emit=oracle)
    ...run...
    oracle.finish()          # checks that need the end: leftovers, edits without an INVAL
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from vkprotocol.events import EVENTS

from vkemu.oracle.content import Content
from vkemu.oracle.dirt import Dirt
from vkemu.oracle.guest_dirty import GuestDirty
from vkemu.oracle.interlock import Interlock
from vkemu.oracle.lock_hygiene import LockHygiene
from vkemu.oracle.mapped import MappedFlag
from vkemu.oracle.memory import Memory
from vkemu.oracle.ownership import FreedAccess, FreeFrame
from vkemu.oracle.reference import Reference
from vkemu.oracle.refs import Refs
from vkemu.oracle.second_stage import SecondStage
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.translation import Translations
from vkemu.oracle.violation import INVARIANTS, Happening, Violation

__all__ = ["CHECKS", "DEFAULT_CHECKS", "INVARIANTS", "Happening", "Oracle", "Violation"]

# Name -> the invariant of facts 8.2 (0: of the events themselves).
CHECKS: Final = {
    "stale-translation": 1,
    "free-frame": 2,
    "freed-access": 2,
    "mapped-flag": 3,
    "dirty": 4,
    "guest-dirty": 5,
    "read-only": 6,
    "interlock": 7,
    "lock-hygiene": 8,
    "refs": 10,
    "reference": 11,
    "books": 12,  # made where the kernels are at hand: launch/assemble.py, litmus/decide.py
    "content": 0,
}
# What each looks at. One that comes early stops an execution before a later one sees harm.
ABOUT: Final = {
    "stale-translation": "after the INVAL of an edit no PTE, TLB entry or fault in flight has what "
    "the VPTE was before it",
    "free-frame": "a frame that is free or cached is mapped nowhere: seen as it gets there, before "
    "there is harm",
    "freed-access": "nobody reads or writes a frame through a translation older than its owner: "
    "the harm itself",
    "mapped-flag": "PG_MAPPED is set before the first PTE is, and cleared after the last is gone",
    "dirty": "of bytes changed since the page was last written out the kernel can know",
    "guest-dirty": "what a process of the guest has changed since VPTE_M was cleared, and "
    "invalidated, shows in VPTE_M",
    "read-only": "a writable host PTE comes from a writable VPTE",
    "interlock": "no two interlocks of a map overlap, who waits for one gets it, none is left over",
    "lock-hygiene": "the pageout daemon holds no map lock; nobody asks for a map lock while "
    "holding an interlock of the map; a fault has no two pages busied but those of a copy",
    "refs": "references of a vmspace are its runners and the calls in flight on it",
    "reference": "programs find in memory what they, and who shares it with them, have stored",
    "books": "at the end, what the kernels count, list and flag is what there is",
    "content": "of the events and not of a kernel: a load gives what was stored",
}
DEFAULT_CHECKS: Final = tuple(name for name, invariant in CHECKS.items() if invariant)

Handler = Callable[..., None]


class Oracle:
    """Call it with every event; it raises Violation in the step in which an invariant breaks."""

    def __init__(self, checks: Iterable[str] = DEFAULT_CHECKS) -> None:
        self.checks = tuple(checks)
        unknown = [name for name in self.checks if name not in CHECKS]
        if unknown:
            raise ValueError(f"no such check: {', '.join(unknown)}")
        self.shadow = Shadow()
        self._parts = self._build(frozenset(self.checks))
        self._handlers = self._dispatch()

    @property
    def reference(self) -> Reference | None:
        """None: not among the checks."""
        return next((part for part in self._parts if isinstance(part, Reference)), None)

    @property
    def actor(self) -> Callable[[], str]:
        """Who does what happens: the running kernel thread, or what the reader of a log says."""
        return self.shadow.actor

    @actor.setter
    def actor(self, actor: Callable[[], str]) -> None:
        self.shadow.actor = actor

    def _build(self, checks: frozenset[str]) -> list[Any]:
        """The state first, then the checks that look at it."""
        shadow = self.shadow
        memory = Memory(shadow)
        # Of the second stage also whose frame a nested translation leads to, for all checks.
        second = SecondStage(shadow, "free-frame" in checks, "read-only" in checks)
        parts: list[Any] = [shadow, memory, second]
        simple: dict[str, Callable[[Shadow], Any]] = {
            "content": Content,
            "freed-access": FreedAccess,
            "free-frame": FreeFrame,
            "mapped-flag": MappedFlag,
            "dirty": Dirt,
            "interlock": Interlock,
            "lock-hygiene": LockHygiene,
            "refs": Refs,
            "reference": Reference,
        }
        parts += [build(shadow) for name, build in simple.items() if name in checks]
        stale, rights = "stale-translation" in checks, "read-only" in checks
        if stale or rights:
            parts.append(Translations(shadow, memory, stale, rights))
        if "guest-dirty" in checks:
            parts.append(GuestDirty(shadow, memory))
        return parts

    def _dispatch(self) -> dict[str, Handler]:
        handlers: dict[str, Handler] = {}
        for name in EVENTS:
            method = name.replace(".", "_")
            takers = [getattr(part, method) for part in self._parts if hasattr(part, method)]
            if len(takers) == 1:
                handlers[name] = takers[0]
            elif takers:
                handlers[name] = _each(takers)
        return handlers

    def wants(self, name: str) -> bool:
        """Does any check look at events of this name?"""
        return name in self._handlers

    def __call__(self, name: str, /, *args: Any) -> None:
        shadow = self.shadow
        shadow.step += 1
        handler = self._handlers.get(name)
        if handler is not None:
            shadow.event = (name, args)
            handler(*args)

    def tell(self, name: str, handler: Handler) -> None:
        """Whenever this happens, after the checks have looked at it."""
        known = self._handlers.get(name)
        self._handlers[name] = handler if known is None else _each([known, handler])

    def blame(self, error: Exception) -> tuple[list[str], list[Any]]:
        """Whom a violation is about: the threads that did it, the processes that map the frame."""
        if not isinstance(error, Violation):
            return [], []
        shadow = self.shadow
        actors = dict.fromkeys(h.actor for h in error.accesses if h is not None)
        procs: dict[Any, None] = {}
        if error.frame is not None:
            owners = {pmap: proc for proc, pmaps in shadow.pmaps.items() for pmap in pmaps}
            mapped = (pmap for pmap, _ in shadow.frame(error.frame).ptes)
            procs = dict.fromkeys(owners[pmap] for pmap in mapped if pmap in owners)
        return list(actors), list(procs)

    def forget(self, proc: Any) -> None:
        """The process has ended, and nothing of it will come any more: keep nothing of it. For a
        host that goes on for ever; a run that ends needs no such thing."""
        for part in self._parts:
            forget = getattr(part, "forget", None)
            if forget is not None:
                forget(proc)

    def finish(self) -> None:
        """The run has ended properly: nobody is in flight any more."""
        for part in self._parts:
            end = getattr(part, "finish", None)
            if end is not None:
                end()


def _each(takers: list[Handler]) -> Handler:
    """All of them, also after one that finds something wrong: on a live host it goes on."""

    def each(*args: Any) -> None:
        found: Violation | None = None
        for taker in takers:
            try:
                taker(*args)
            except Violation as violation:
                found = found or violation
        if found is not None:
            raise found

    return each
