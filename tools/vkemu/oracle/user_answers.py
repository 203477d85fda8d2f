"""What a program is answered: is it what its address space lets a call say?

Only while nobody else changes its mappings.
"""

from __future__ import annotations

from vkprotocol.errno import Errno
from vkprotocol.mman import PROT_READ
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS

from vkemu.oracle.user_space import Change, Process


class Answers:
    """`asked`, by program and thread: the call, its range, and how often mappings and locks had
    begun or ended to change."""

    def __init__(self) -> None:
        self.asked: dict[tuple[str, int], tuple[str, int, int, int]] = {}
        self.turns: dict[str, int] = {}

    def begin(self, process: Process, tid: int, name: str, start: int, end: int) -> None:
        who = process.who
        hosts = "/" not in who and name in ("msync", "mlock", "munlock", "mprotect")
        if (hosts or name == "munmap") and (who, tid) not in self.asked:
            loose = process.loose or any(key[0] == who for key in self.asked)
            self.asked[who, tid] = (name, start, end, -1 if loose else self._turn(process))

    def _turn(self, process: Process) -> int:
        self.turns[process.who] = self.turns.get(process.who, 0) + 1
        return self.turns[process.who] + process.version

    def end(self, process: Process, tid: int, errno: int) -> str:
        """What is wrong with it. A change of mappings is not noted yet."""
        call = self.asked.pop((process.who, tid), None)
        if call is None:
            return ""
        name, start, end, turn = call
        changes = name in ("munmap", "mprotect")
        steady = self._turn(process) == turn + 1 + changes
        right = _right(process, name, start, end) if steady else (errno,)
        if name in ("mlock", "munlock"):
            known = steady and (not errno or name == "munlock")
            if not errno or name == "mlock":
                process.lock(start, end, (name == "mlock") if known else None)
        if errno in right:
            return ""
        return f"{name} of {start:#x}-{end:#x} is answered {errno}, not {right[0]}"


def _right(process: Process, name: str, start: int, end: int) -> tuple[int, ...]:
    """The answers that there may be; the first is the usual one."""
    if name == "mprotect" or (start == end and name != "msync"):
        return (0,)
    whole = process.whole(start, max(end, start + 1))
    if name in ("msync", "munmap"):
        return (0,) if whole else (Errno.EINVAL,)
    regions = list(process.inside(start, end))
    if name == "munlock":
        locked = {r.locked for r in regions}
        if not whole or False in locked:
            return (Errno.ENOMEM,)
        return (0,) if None not in locked else (0, Errno.ENOMEM)
    hidden = [r.locked for r in regions if not r.prot & PROT_READ]  # once locked, not looked at
    if not whole or False in hidden:
        return (Errno.ENOMEM, Errno.EAGAIN)
    return (0, Errno.EAGAIN) if None not in hidden else (0, Errno.EAGAIN, Errno.ENOMEM)


def refused(process: Process, change: Change, errno: int) -> bool:
    """Without a reason? mprotect of a guest's kernel takes any range of whole pages, with holes."""
    if errno != Errno.EINVAL or "/" not in process.who or change.name != "mprotect":
        return False
    return not change.start % PAGE_SIZE and change.start < change.end <= VM_MAX_USER_ADDRESS
