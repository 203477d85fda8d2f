"""Invariant 11: programs find in memory what they, and who shares it with them, have stored.

The model of user_space.py beside the kernels: told what programs asked for and were answered
(`user.*`), and asked about each of their loads, stores and faults. Of the kernels it believes only
that a vCPU runs what it was told to run. What it knows nothing of - a guest in a process of its own
tells no system calls - it does not judge.
"""

from __future__ import annotations

from typing import Any, Final

from vkprotocol.limits import U64
from vkprotocol.mman import MADV_FREE, PROT_READ, PROT_WRITE

from vkemu.oracle.code_access import CodeAccess, bytes_at, words_of
from vkemu.oracle.frame import Id
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.user_answers import Answers, refused
from vkemu.oracle.user_memory import ZERO, Memory, Values
from vkemu.oracle.user_space import SHARES, Change, Copy, Process, Region, overlapping
from vkemu.oracle.violation import Violation

CHANGES: Final = ("mmap", "munmap", "mprotect")
COPIES: Final = ("fuword", "suword")
RW: Final = PROT_READ | PROT_WRITE


class Reference:
    """`acting`: which program's accesses those of a thread are, by name of the thread."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self.processes: dict[str, Process] = {}
        self.assigned: dict[Id, str] = {}  # lwp -> the program its vCPU runs
        self.acting: dict[str, Process] = {}
        self.on_cpu: dict[int, str] = {}  # cpu -> thread
        self.owners: dict[Id, str] = {}  # lwp -> host process
        self.entered: dict[Id, int] = {}  # lwp -> version of the address space it faults in
        self.copies: dict[tuple[str, int, int], Copy] = {}  # by program, thread and address
        self.files: dict[tuple[str, str], Memory] = {}  # by host process and name
        self.answers = Answers()
        self.by_code = CodeAccess()
        self.frees: dict[tuple[str, int], list[tuple[Memory, int, int]]] = {}
        self.dying: set[str] = set()
        self.unreadable = 0  # reads of disk that failed: each a fault of whoever waited for it

    # Who runs where.

    def proc_create(self, proc: Id, pmap: Id) -> None:
        self.user_exec(str(proc))

    def lwp_create(self, proc: Id, lwp: Id) -> None:
        self.owners[lwp] = str(proc)

    def cpu_pmap(self, cpu: int, pmap: Id) -> None:
        self.on_cpu[cpu] = self.shadow.actor()

    def user_run(self, lwp: Id, who: str) -> None:
        self.assigned[lwp] = who

    def run_enter(self, lwp: Id, ident: int) -> None:
        self._acts(lwp, self.assigned.get(lwp))

    def run_exit(self, lwp: Id, ident: int, trapno: int, addr: int) -> None:
        self.acting.pop(self.shadow.actor(), None)
        process = self.processes.get(self.assigned.get(lwp, ""))
        if process is not None:
            self.entered[lwp] = process.version

    def syscall_begin(self, lwp: Id, name: str) -> None:
        if name == "cpu_ops":
            self._acts(lwp, self.owners.get(lwp))

    def syscall_end(self, lwp: Id, name: str, errno: int, value: int) -> None:
        if self.acting:
            self.acting.pop(self.shadow.actor(), None)

    def _acts(self, lwp: Id, who: str | None) -> None:
        process = self.processes.get(who or "")
        if process is not None:
            self.acting[self.shadow.actor()] = process
            self.entered[lwp] = process.version

    def oom_kill(self, proc: Id, pages: int, reason: str) -> None:
        self.dying.add(str(proc))

    def fault_inject(self, name: str, who: str) -> None:
        unreadable = ("swap-read", "image-read", "image-truncated")
        self.unreadable += name in unreadable

    # Programs.

    def user_exec(self, who: str) -> None:
        self.processes[who] = Process(who)

    def user_map(
        self, who: str, start: int, end: int, prot: int, flags: int, content: bytes
    ) -> None:
        words: dict[int, Values] = {
            start + 8 * i: (word,) for i, word in enumerate(words_of(content)) if word
        }
        memory = Memory(words)
        self.processes[who].add(start, end, prot, bool(flags & SHARES), memory)

    def user_exit(self, who: str) -> None:
        process = self.processes.pop(who, None)
        for key in [key for key in self.copies if key[0] == who]:
            self._end_copy(key, done=False)
        for _, tid in [key for key in self.frees if key[0] == who]:
            self._end_free(who, tid)
        if any(p is process for p in self.processes.values()):
            return  # after vfork
        for actor in [a for a, p in self.acting.items() if p is process]:
            raise self._violation(f"program {who} has ended while {actor} runs it")

    def user_fork(self, who: str, tid: int, child: str) -> None:
        process = self.processes.get(who)
        fork = None if process is None else process.end_fork(tid)
        if fork is None:
            return
        opened = [(name, file) for (owner, name), file in self.files.items() if owner == who]
        self.files.update({(child, name): file for name, file in opened})
        copy = self.processes[child] = Process(child)
        copy.regions = [region for region, _ in fork.regions]
        for start, end in fork.unsure:
            copy.doubt(start, end)

    def user_vfork(self, who: str, tid: int, child: str) -> None:
        process = self.processes.get(who)
        if process is not None:
            self.processes[child] = process

    def user_content(self, who: str, name: str, content: bytes) -> None:
        words: dict[int, Values] = {
            8 * i: (word,) for i, word in enumerate(words_of(content)) if word
        }
        self.files[who, name] = Memory(words)

    def user_file(self, who: str, tid: int, name: str, offset: int) -> None:
        process = self.processes.get(who)
        memory = self.files.get((who.partition("/")[0], name))
        if process is not None and memory is not None:
            process.changes[tid].file = (memory, offset)

    def user_call(
        self, who: str, tid: int, name: str, start: int, end: int, prot: int, flags: int, value: int
    ) -> None:
        process = self.processes.get(who)
        if process is None:
            return
        self.answers.begin(process, tid, name, start, end)
        if name in CHANGES:
            process.begin(tid, Change(name, start, end, prot, flags))
            self._doubt_overlaps(process)
        elif name == "fork":
            process.begin_fork(tid)
        elif name == "madvise" and value == MADV_FREE:
            self._begin_free(process, tid, start, end)
        elif name in COPIES and (who, tid, start) not in self.copies:
            self._begin_copy(process, who, tid, start, value if name == "suword" else None)
            self._doubt_overlaps(process)
        elif name == "copyin":
            for va in range(start & ~7, end, 8):
                self._begin_copy(process, who, tid, va, None)

    def user_copyout(self, who: str, tid: int, va: int, content: bytes) -> None:
        process = self.processes.get(who)
        if process is None:
            return
        for at, mask, bits in bytes_at(va, content):
            self._begin_copy(process, who, tid, at, bits, mask)
        self._doubt_overlaps(process)

    def user_copyin(self, who: str, tid: int, va: int, content: bytes) -> None:
        process = self.processes.get(who)
        if process is None:
            return
        for at, mask, bits in bytes_at(va, content):
            copy = self._end_copy((who, tid, at), done=True)
            if copy.version != process.version or copy.interval is None or process.doubted(at):
                continue
            if all(value & mask != bits for value in copy.interval.values):
                raise self._wrong(process, at, bits, tuple(v & mask for v in copy.interval.values))

    def _begin_copy(
        self, process: Process, who: str, tid: int, va: int, written: int | None, mask: int = U64
    ) -> None:
        region = process.at(va)
        interval = None
        if region is not None:
            interval = region.memory.begin(va - region.shift, written, mask)
        self.copies[who, tid, va] = Copy(va, region, interval, process.version, written, mask)

    def user_return(self, who: str, tid: int, name: str, errno: int, value: int) -> None:
        process = self.processes.get(who)
        if process is None:
            return
        if wrong := self.answers.end(process, tid, errno):
            raise self._violation(f"{wrong}, to program {who}")
        if name in CHANGES:
            change = process.changes[tid]
            if change.unknown and "/" not in who and not errno:
                del self.processes[who]  # a vkernel: its image is its own business
                return
            if refused(process, change, errno):
                raise self._violation(f"{name} of program {who} is refused: EINVAL")
            process.end(tid, not errno, value)
            for (program, _, va), copy in self.copies.items():
                if program == who and change.start <= va < change.end:
                    copy.follow(process)
            self._doubt_overlaps(process, change)
        elif name == "fork":
            process.end_fork(tid)
        elif name == "madvise":
            self._end_free(who, tid)
        elif name in COPIES:
            self._copied(process, tid, name, errno, value)
        elif name in ("copyin", "copyout"):  # the same of any bytes
            for key in [key for key in self.copies if key[:2] == (who, tid)]:
                copy = self._end_copy(key, done=not errno, partly=bool(errno))
                if name == "copyout" and copy.version != process.version:
                    process.doubt(copy.va, copy.va + 8)

    def _end_free(self, who: str, tid: int) -> None:
        for memory, start, end in self.frees.pop((who, tid), ()):
            memory.freed(start, end)

    def _end_copy(self, key: tuple[str, int, int], *, done: bool, partly: bool = False) -> Copy:
        copy, process = self.copies.pop(key), self.processes.get(key[0])
        copy.end(process, done, partly)
        if copy.written is not None:
            self._stray(process, copy.va, copy.written)
        return copy

    def _stray(self, process: Process | None, va: int, value: int) -> None:
        """Where nobody knows what is mapped, it may be any file."""
        if process is not None and process.doubted(va):
            guest = process.who.partition("/")[0]
            for memory in (m for (who, _), m in self.files.items() if who == guest):
                memory.strays.append(value)

    def _copied(self, process: Process, tid: int, name: str, errno: int, value: int) -> None:
        key = next(key for key in self.copies if key[:2] == (process.who, tid))
        copy = self._end_copy(key, done=not errno)
        region, interval = copy.region, copy.interval
        if copy.version != process.version or process.loose:
            if interval is not None and not errno:  # it may have gone into another mapping
                process.doubt(copy.va, copy.va + 8)
            return
        wanted = RW if name == "suword" else PROT_READ
        permitted = region is not None and not wanted & ~region.prot
        if permitted is bool(errno):
            how = "is refused" if errno else "is done"
            raise self._violation(f"{name} of program {process.who} {how}, {_why(region)}")
        if errno or name != "fuword" or interval is None:
            return
        if value not in interval.values:
            raise self._wrong(process, copy.va, value, interval.values)

    def _begin_free(self, process: Process, tid: int, start: int, end: int) -> None:
        if (process.who, tid) in self.frees:
            return
        inside = process.inside(start, end)
        memories = dict.fromkeys(r.memory for r in inside if r.memory.file is None and not r.shift)
        self.frees[process.who, tid] = [(memory, start, end) for memory in memories]
        for memory in memories:
            memory.free(start, end)
        self._doubt_overlaps(process)

    def _doubt_overlaps(self, process: Process, *ended: Change) -> None:
        """What the kernel writes or frees while a mapping changes is done to the old or the new."""
        spans = [
            (copy.va, copy.va + 8)
            for (who, _, _), copy in self.copies.items()
            if who == process.who and copy.interval is not None
        ]
        for (who, _), frees in self.frees.items():
            spans += [(start, end) for _, start, end in frees if who == process.who]
        for start, end in overlapping(spans, (*process.changes.values(), *ended)):
            process.doubt(start, end)

    # Accesses.

    def mem_load(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        process = self.acting.get(self.shadow.actor()) if self.acting else None
        if process is None:
            return
        region = process.at(va)
        if process.loose and self._loosely_loaded(process, region, va, value):
            return
        if region is None or not region.prot:
            raise self._violation(f"program {process.who} reads {va:#x}, {_why(region)}")
        place = va - region.shift
        values = region.memory.values(place)
        if value not in values:
            raise self._wrong(process, va, value, values)
        if len(values) > 1:
            region.memory.loaded(place, value)
        if self.by_code.merged and self.shadow.actor() in self.by_code.merged:
            wrong = self.by_code.page(process, region, va, self.shadow.frame(pfn))
            if wrong is not None:
                raise self._wrong(process, *wrong)

    def mem_store(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        process = self.acting.get(self.shadow.actor()) if self.acting else None
        if process is None:
            return
        if self.by_code.code and self.shadow.actor() in self.by_code.code:
            wrong = self.by_code.before(process, va, self.shadow.frame(pfn))
            if wrong is not None:
                raise self._wrong(process, *wrong)
        self._stored(process, va, value)

    def user_insns(self, lwp: Id, rip: int, count: int) -> None:
        """What follows is by machine code, in a step of so many instructions."""
        self.by_code.insns(self.shadow.actor(), count)

    def mem_cmpset(
        self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int, ok: bool, old: int
    ) -> None:
        self.mem_load(cpu, pmap, va, pfn, idx, old)
        if ok:
            self.mem_store(cpu, pmap, va, pfn, idx, value)

    def mem_emulate(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        """By the fault that the access has caused, on another thread."""
        process = self.acting.get(self.on_cpu.get(cpu, ""))
        if process is not None:
            self._stored(process, va, value)

    def _stored(self, process: Process, va: int, value: int) -> None:
        region = process.at(va)
        place = va if region is None else va - region.shift
        if process.loose:
            changes = process.covering(va, region)
            for change in changes:
                if change.name == "mmap":
                    change.stores[va] = (*change.stores.get(va, ()), value)
            if process.doubted(va) or any(change.prot & PROT_WRITE for change in changes):
                if region is not None:
                    region.memory.may_store(place, value)
                self._stray(process, va, value)
                return
        if region is None or not region.prot & PROT_WRITE:
            raise self._violation(f"program {process.who} writes {va:#x}, {_why(region)}")
        region.memory.store(place, value)

    def _loosely_loaded(self, process: Process, region: Region | None, va: int, value: int) -> bool:
        """While mappings change: may it be the value of one that is being made?"""
        if process.doubted(va):
            return True
        for change in process.covering(va, region):
            if change.name == "mmap" and value in (*ZERO, *change.stores.get(va, ())):
                return True
            if change.file is not None:
                return True
            if change.name == "mprotect" and change.prot and region is not None:
                return value in region.memory.values(va - region.shift)
        return False

    def user_fault(self, lwp: Id, who: str, va: int, prot: int) -> None:
        """Right if at any moment since the access the mapping did not permit it."""
        process = self.processes.get(who)
        if process is None or who.partition("/")[0] in self.dying:
            return
        region = process.at(va)
        steady = self.entered.get(lwp) == process.version and not process.changes
        if region is None or not steady or process.doubted(va):
            return
        wanted = RW if prot & PROT_WRITE else prot
        if not wanted & ~region.prot:
            if self.unreadable:
                self.unreadable -= 1
                return
            raise self._violation(
                f"program {who} faults at {va:#x}, which is mapped and permits the access"
            )

    def _wrong(self, process: Process, va: int, value: int, values: Values) -> Violation:
        right = " or ".join(f"{v:#x}" for v in dict.fromkeys(values))
        return self._violation(f"program {process.who} reads {value:#x} at {va:#x}, not {right}")

    def _violation(self, message: str) -> Violation:
        event: tuple[str, tuple[Any, ...]] = self.shadow.event
        frame = event[1][3] if event[0].startswith("mem.") else None
        return Violation(
            11,
            message,
            check="reference",
            accesses=(None, self.shadow.now()),
            frame=frame,
            events=() if frame is None else self.shadow.frame(frame).history,
        )


def _why(region: Region | None) -> str:
    return "where nothing is mapped" if region is None else f"mapped with PROT_* {region.prot}"
