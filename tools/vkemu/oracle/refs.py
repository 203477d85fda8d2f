"""Invariant 10: the references of a vmspace_entry are its runners and the calls in flight on it.

Calls are not told apart by vmspace here, so the comparison is made when none of the process is in
flight but those that run guests: then references = runners, exactly.
"""

from __future__ import annotations

from vkemu.oracle.frame import Id
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Happening, Violation

Entry = tuple[Id, int]


class Refs:
    """Counts by process and vmspace id."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self.procs: dict[Id, Id] = {}  # lwp -> process
        self.refs: dict[Entry, tuple[int, Happening]] = {}
        self.entries: dict[Id, dict[int, None]] = {}  # process -> the ids in `refs`
        self.touched: dict[Id, dict[int, None]] = {}  # of them, since all was settled
        self.running: dict[Id, int] = {}  # lwp -> vmspace id
        self.calls: dict[Id, dict[Id, str]] = {}  # process -> lwps in a call

    def lwp_create(self, proc: Id, lwp: Id) -> None:
        self.procs[lwp] = proc

    def vmspace_create(self, proc: Id, ident: int, pmap: Id) -> None:
        self.refs[proc, ident] = (0, self.shadow.now())
        self.entries.setdefault(proc, {})[ident] = None

    def vmspace_destroy(self, proc: Id, ident: int, errno: int) -> None:
        if errno:
            return
        if self._runners(proc, ident):
            raise self._violation((proc, ident), 0, "is destroyed while it runs")
        refs, _ = self.refs.pop((proc, ident), (0, None))
        self.entries.get(proc, {}).pop(ident, None)
        if refs > 1:
            raise self._violation((proc, ident), refs, f"is destroyed with {refs} references")

    def vmspace_ref(self, proc: Id, ident: int, refs: int) -> None:
        if (proc, ident) in self.refs:
            self.refs[proc, ident] = (refs, self.shadow.now())
            self._touch(proc, ident)
            if refs < 0:
                raise self._violation((proc, ident), refs, "has fewer than no references")

    def run_enter(self, lwp: Id, ident: int) -> None:
        self.running[lwp] = ident
        self._touch(self.procs.get(lwp), ident)

    def run_exit(self, lwp: Id, ident: int, trapno: int, addr: int) -> None:
        self.running.pop(lwp, None)
        self._touch(self.procs.get(lwp), ident)

    def _touch(self, proc: Id | None, ident: int) -> None:
        if proc is not None:
            self.touched.setdefault(proc, {})[ident] = None

    def syscall_begin(self, lwp: Id, name: str) -> None:
        proc = self.procs.get(lwp)
        if proc is not None:
            self.calls.setdefault(proc, {})[lwp] = name

    def syscall_end(self, lwp: Id, name: str, errno: int, value: int) -> None:
        proc = self.procs.get(lwp)
        if proc is None:
            return
        calls = self.calls.get(proc, {})
        calls.pop(lwp, None)
        if proc in self.touched and all(other in self.running for other in calls):
            self._settled(proc)

    def finish(self) -> None:
        for proc, calls in self.calls.items():
            if all(lwp in self.running for lwp in calls):
                self._settled(proc)

    def _settled(self, proc: Id) -> None:
        """Of this process alone; and of what it has made, only what was touched since is looked at,
        for a system call must not cost more the more vmspaces there are."""
        touched = self.touched.pop(proc, {})
        for ident in touched:
            if (proc, ident) not in self.refs:
                continue
            refs, _ = self.refs[proc, ident]
            runners = self._runners(proc, ident)
            if refs != runners:
                self.touched[proc] = touched  # it is as wrong the next time
                raise self._violation(
                    (proc, ident), refs, f"has {refs} references and {runners} runners, no calls"
                )

    def forget(self, proc: Id) -> None:
        """Nothing of the process is left."""
        for ident in self.entries.pop(proc, {}):
            self.refs.pop((proc, ident), None)
        for lwp in [lwp for lwp, of in self.procs.items() if of == proc]:
            del self.procs[lwp]
            self.running.pop(lwp, None)
        self.calls.pop(proc, None)
        self.touched.pop(proc, None)

    def _runners(self, proc: Id, ident: int) -> int:
        return sum(
            1 for lwp, ran in self.running.items() if ran == ident and self.procs[lwp] == proc
        )

    def _violation(self, entry: Entry, refs: int, what: str) -> Violation:
        found = self.refs.get(entry)
        return Violation(
            10,
            f"vmspace {entry[1]:#x} of process {entry[0]} {what}",
            check="refs",
            accesses=(None if found is None else found[1], self.shadow.now()),
        )
