"""What a program of the guest says: each statement an instruction or a system call.

All threads of a test with a [guest] are one program, whose text is put together here: what came
`before`, then each thread. The registers of their statements are the machine's,
the same in all of them, so that a child has those of its parent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias

from vkprotocol.insn import addi, ld, li, st, syscall
from vkprotocol.limits import U64
from vkprotocol.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MAP_ANON,
    MAP_FIXED,
    MAP_SHARED,
    MAP_SIZEALIGN,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import PAGE_SIZE

from vkemu.litmus.actor import CALLS, verb
from vkemu.litmus.file import Litmus
from vkemu.litmus.operand import Child, Image, Index, Pages, Passes, Va, Word, choice
from vkemu.litmus.statement import Register, Statement
from vkguest.asm import R0, R1, R2, ZERO, Asm
from vkguest.kern.kern_exec import Program
from vkguest.kern.syscall import Sys
from vkguest.vkernel64.globaldata import GlobalData
from vkguest.vm.vm_page import PQ_ACTIVE, PQ_INACTIVE, vm_page_requeue
from vkguest.vm.vm_pageout import vm_pageout_scan

ERRNO: Final = 15  # the register that says whether a call failed
FIRST_REGISTER: Final = 6  # those below hold a call's number and arguments
UNWRITTEN: Final = 0xDEAD_0000_0000_0000  # what a register holds before a statement writes it
OVER: Final = U64  # the call that ends what a thread says: none that there is
RW: Final = PROT_READ | PROT_WRITE
PROTS: Final = {"none": PROT_NONE, "r": PROT_READ, "rw": RW}
ADVICE: Final = {"free": MADV_FREE, "dontneed": MADV_DONTNEED}
QUEUES: Final = {"active": PQ_ACTIVE, "inactive": PQ_INACTIVE}
SHARING: Final = {"private": 0, "shared": MAP_SHARED, "large": MAP_SIZEALIGN}
Prot: TypeAlias = Annotated[str, choice(*PROTS)]
Advice: TypeAlias = Annotated[str, choice(*ADVICE)]
Queue: TypeAlias = Annotated[str, choice(*QUEUES)]
Sharing: TypeAlias = Annotated[str, choice(*SHARING)]


@dataclass(slots=True)
class Code:
    """The program as far as it is written."""

    litmus: Litmus
    asm: Asm = field(default_factory=Asm)
    target: str | None = None  # of the statement at hand

    def va(self, name: Any) -> int:
        return name if isinstance(name, int) else self.litmus.file.va[name].va

    def register(self, name: str) -> int:
        return FIRST_REGISTER + self.litmus.registers.index(name)

    def put(self, number: int, word: Any) -> None:
        if isinstance(word, Register):
            self.asm.put(addi(number, self.register(word), 0))
        else:
            self.asm.put(li(number, word))

    def call(self, number: Sys, *words: Any) -> None:
        """-1 where it fails."""
        for reg, word in enumerate(words, R1):
            self.put(reg, word)
        self.asm.call(number)
        if self.target is not None:
            target, done = self.register(self.target), self.asm.fresh("done")
            self.asm.put(addi(target, R0, 0))
            self.asm.beq(ERRNO, ZERO, done)
            self.asm.put(li(target, U64))
            self.asm.label(done)

    def say(self, statement: Statement) -> None:
        self.target = statement.target
        CALLS[statement.verb].do(self, *statement.args)


def is_daemon(statement: Statement) -> bool:
    """Whether it is the guest's kernel that says it, by itself."""
    return "daemon" in CALLS[statement.verb].kinds


def compiled(litmus: Litmus) -> tuple[Program, dict[str, int]]:
    """The program of the test's process, and where in it each thread begins and ends."""
    code = _begun(litmus)
    asm = code.asm
    for statement in litmus.before:
        if is_daemon(statement):
            asm.call(Sys.YIELD)
        else:
            code.say(statement)
    asm.call(Sys.YIELD)
    assert litmus.file.guest is not None
    data, images = litmus.file.guest.data, []
    for thread in litmus.threads:
        if thread.kind == "image":
            image = _begun(litmus)
            _thread(image, thread.name, thread.run)
            images.append(Program(thread.name, image.asm.text(), data))
        elif thread.kind != "daemon":
            _thread(code, thread.name, thread.run)
    return Program(litmus.file.litmus.name, asm.text(), data, tuple(images)), asm.labels


def _begun(litmus: Litmus) -> Code:
    code = Code(litmus)
    for number in range(len(litmus.registers)):
        code.asm.put(li(FIRST_REGISTER + number, UNWRITTEN))
    return code


def _thread(code: Code, name: str, run: tuple[Statement, ...]) -> None:
    code.asm.label(name)
    for statement in run:
        code.say(statement)
    code.asm.put(li(R0, OVER), syscall())


# Memory.


@verb("process child image", CALLS)
def load(code: Code, va: Va, word: Index = 0) -> None:
    """The program reads a word."""
    code.asm.put(li(R1, code.va(va) + 8 * word))
    code.asm.put(ld(R2 if code.target is None else code.register(code.target), R1))


@verb("process child image", CALLS)
def store(code: Code, va: Va, value: Word, word: Index = 0) -> None:
    """The program writes a word."""
    code.put(R2, value)
    code.asm.put(li(R1, code.va(va) + 8 * word), st(R2, R1))


@verb("process child image", CALLS)
def copyin(code: Code, va: Va) -> None:
    """The kernel reads the word, as write(2) does."""
    code.call(Sys.FUWORD, code.va(va))


@verb("process child image", CALLS)
def copyout(code: Code, va: Va, value: Word) -> None:
    """The kernel writes it, as read(2) does."""
    code.call(Sys.SUWORD, code.va(va), value)


@verb("process child image", CALLS)
def mmap(code: Code, va: Va, pages: Pages, sharing: Sharing = "private") -> None:
    """Anonymous memory in place of what is mapped there; `large`: wired, by one PS entry."""
    flags = MAP_ANON | MAP_FIXED | SHARING[sharing]
    code.call(Sys.MMAP, code.va(va), pages * PAGE_SIZE, RW, flags)


@verb("process child image", CALLS)
def munmap(code: Code, va: Va, pages: Pages) -> None:
    """What is mapped there is gone."""
    code.call(Sys.MUNMAP, code.va(va), pages * PAGE_SIZE)


@verb("process child image", CALLS)
def mprotect(code: Code, va: Va, pages: Pages, prot: Prot) -> None:
    """The program changes what it may do there."""
    code.call(Sys.MPROTECT, code.va(va), pages * PAGE_SIZE, PROTS[prot])


@verb("process child image", CALLS)
def madvise(code: Code, va: Va, pages: Pages, advice: Advice) -> None:
    """The pages may lose what they hold, or are not needed soon."""
    code.call(Sys.MADVISE, code.va(va), pages * PAGE_SIZE, ADVICE[advice])


# Processes.


@verb("process child image", CALLS)
def fork(code: Code, child: Child) -> None:
    """A process that goes on with thread `child`; its pid."""
    asm, on = code.asm, code.asm.fresh("parent")
    code.call(Sys.FORK)
    asm.bne(R0, ZERO, on)
    asm.beq(ERRNO, ZERO, child)
    asm.label(on)


@verb("process child image", CALLS)
def wait(code: Code, pid: Word) -> None:
    """Until the child has ended; the status it has ended with."""
    code.call(Sys.WAIT4, pid)


@verb("process child image", CALLS)
def kill(code: Code, pid: Word) -> None:
    """SIGKILL to the process."""
    code.call(Sys.KILL, pid)


@verb("process child image", CALLS)
def exit_(code: Code, status: Word) -> None:
    """The process ends."""
    code.call(Sys.EXIT, status)


@verb("process child image", CALLS)
def lwp_exit(code: Code) -> None:
    """The thread ends, and the process with the last."""
    code.call(Sys.EXTEXIT, 0)


@verb("process child image", CALLS)
def exec_(code: Code, image: Image) -> None:
    """The process goes on with thread `image`, on memory of its own."""
    images = [t.name for t in code.litmus.threads if t.kind == "image"]
    code.call(Sys.EXECVE, images.index(image))


# Pipes.


@verb("process child image", CALLS)
def pipe(code: Code) -> None:
    """A pipe of one page; what it is known by."""
    code.call(Sys.PIPE, 1)


@verb("process child image", CALLS)
def pipe_write(code: Code, pipe_id: Word, value: Word) -> None:
    """A word into the pipe; asleep while it is full."""
    code.call(Sys.PIPE_WRITE, pipe_id, value)


@verb("process child image", CALLS)
def pipe_read(code: Code, pipe_id: Word) -> None:
    """The next word; asleep while there is none."""
    code.call(Sys.PIPE_READ, pipe_id)


@verb("process child image", CALLS)
def pipe_close(code: Code, pipe_id: Word) -> None:
    """The pipe is gone once nobody has it."""
    code.call(Sys.PIPE_CLOSE, pipe_id)


# The guest's kernel: its page daemon.


@verb("daemon", CALLS)
async def scan(gd: GlobalData, queue: Queue, passes: Passes = 0) -> None:
    """One round of the page daemon over a queue."""
    await vm_pageout_scan(gd, QUEUES[queue], passes)


@verb("daemon", CALLS)
async def deactivate(gd: GlobalData) -> None:
    """All pages of programs that are on the active queue go to the inactive one."""
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        pages = list(vpq.queues[PQ_ACTIVE].values())
    for m in pages:
        await vm_page_requeue(gd, m, PQ_INACTIVE)
