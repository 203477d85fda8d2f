"""What programs ask for and are answered, as events: ktrace(1) of whatever concerns memory.

A check outside the kernels that is to say what a program may see needs this much and no more.
DragonFly `kern/kern_ktrace.c`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vkprotocol.param import round_page, trunc_page

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vm.vm_map import VmMapEntry

WORD = 8


def ktrname(gd: GlobalData, pid: int) -> str:
    """A guest process in events."""
    return f"{gd.kernel.proc}/{pid}"


def ktrcsw(gd: GlobalData, lp: Lwp) -> None:
    """kern_ktrace.c:ktrcsw: `lp` runs on this vCPU."""
    kernel = gd.kernel
    kernel.emit("user.run", f"{kernel.proc}.{gd.cpuid}", ktrname(gd, lp.proc.pid))


def ktrsyscall(gd: GlobalData, lp: Lwp, name: str, args: tuple[int, ...]) -> None:
    """kern_ktrace.c:ktrsyscall."""
    start, end, prot, flags, value = args[0], args[0], 0, 0, 0
    match name:
        case "fork":
            start = end = 0
        case "fuword" | "suword":
            end += WORD
            value = args[1] if name == "suword" else 0
        case "madvise":
            start, end, value = trunc_page(start), round_page(start + args[1]), args[2]
        case _:
            start, end = trunc_page(start), round_page(start + args[1])
            prot = args[2] if name != "munmap" else 0
            flags = args[3] if name == "mmap" else 0
    who = ktrname(gd, lp.proc.pid)
    gd.kernel.emit("user.call", who, lp.tid, name, start, end, prot, flags, value)


def ktrsysret(gd: GlobalData, lp: Lwp, name: str, result: int) -> None:
    """kern_ktrace.c:ktrsysret. `result`: the value, or minus an errno."""
    value, errno = (result, 0) if result >= 0 else (0, -result)
    gd.kernel.emit("user.return", ktrname(gd, lp.proc.pid), lp.tid, name, errno, value)


def ktrcopyin(gd: GlobalData, lp: Lwp, va: int, count: int) -> None:
    who = ktrname(gd, lp.proc.pid)
    gd.kernel.emit("user.call", who, lp.tid, "copyin", va, va + count, 0, 0, 0)


def ktrcopiedin(gd: GlobalData, lp: Lwp, va: int, content: bytes) -> None:
    gd.kernel.emit("user.copyin", ktrname(gd, lp.proc.pid), lp.tid, va, content)


def ktrcopyout(gd: GlobalData, lp: Lwp, va: int, content: bytes) -> None:
    gd.kernel.emit("user.copyout", ktrname(gd, lp.proc.pid), lp.tid, va, content)


def ktrcontent(gd: GlobalData, name: str, content: bytes = b"") -> None:
    """A file that programs of this guest can map."""
    gd.kernel.emit("user.content", str(gd.kernel.proc), name, content)


def ktrfile(gd: GlobalData, lp: Lwp, name: str, offset: int) -> None:
    gd.kernel.emit("user.file", ktrname(gd, lp.proc.pid), lp.tid, name, offset)


def ktrelf(gd: GlobalData, pid: int, pieces: Iterable[tuple[int, int, int, bytes]]) -> None:
    """A program in machine code begins: (start, end, prot, content from there on) of its memory."""
    kernel, who = gd.kernel, ktrname(gd, pid)
    kernel.emit("user.exec", who)
    for start, end, prot, content in pieces:
        kernel.emit("user.map", who, start, end, prot, 0, content)


def ktrexec(gd: GlobalData, pid: int, entries: list[VmMapEntry]) -> None:
    """A program begins, with these mapped."""
    kernel, who = gd.kernel, ktrname(gd, pid)
    kernel.emit("user.exec", who)
    for entry in entries:
        content = array("Q", entry.object.text).tobytes()
        kernel.emit(
            "user.map", who, entry.start, entry.end, entry.protection, int(bool(content)), content
        )
