"""An assembler for guest programs: instructions, labels, and the idioms they are made of."""

from __future__ import annotations

from vkprotocol.insn import Insn, addi, beq, bne, fetch, ld, li, st, syscall
from vkprotocol.limits import U64

from vkguest.kern.syscall import Sys

# Register conventions of the programs in workloads.py.
R0, R1, R2, R3, R4, R5 = range(6)  # system call number and result, arguments
PID = 6
VALUE, VA, END, ROUND, CHILD = range(7, 12)
SCRATCH, SCRATCH2 = 12, 13
ZERO = 14


class Asm:
    """A program under construction. `label` may be used before it is placed."""

    def __init__(self) -> None:
        self.insns: list[Insn] = []
        self.labels: dict[str, int] = {}
        self.branches: list[tuple[int, str]] = []
        self.made = 0

    def put(self, *insns: Insn) -> None:
        self.insns.extend(insns)

    def fresh(self, stem: str) -> str:
        """A label nobody else uses."""
        self.made += 1
        return f"{stem}.{self.made}"

    def label(self, name: str) -> None:
        assert name not in self.labels, f"label {name} is placed twice"
        self.labels[name] = len(self.insns)

    def bne(self, rs: int, rt: int, target: str) -> None:
        self.branches.append((len(self.insns), target))
        self.put(bne(rs, rt, 0))

    def beq(self, rs: int, rt: int, target: str) -> None:
        self.branches.append((len(self.insns), target))
        self.put(beq(rs, rt, 0))

    def jump(self, target: str) -> None:
        self.beq(ZERO, ZERO, target)

    def target(self, reg: int, label: str) -> None:
        """reg := the index of the instruction at `label`, for lwp_create."""
        self.branches.append((len(self.insns), label))
        self.put(li(reg, 0))

    def call(self, number: Sys, *args: int) -> None:
        """A system call with constant arguments."""
        for reg, value in enumerate(args, R1):
            self.put(li(reg, value & U64))
        self.put(li(R0, number), syscall())

    def call_regs(self, number: Sys, *regs: int) -> None:
        """A system call with arguments from registers, none of which may be r1 to r5."""
        for reg, source in enumerate(regs, R1):
            self.put(addi(reg, source, 0))
        self.put(li(R0, number), syscall())

    def check_word(self, va: int, value: int, offset: int = 0) -> None:
        """The word at [va + offset] must be register `value`, or the program says fail."""
        self.put(addi(R1, va, offset), addi(R2, value, 0), ld(R3, R1))
        self.bne(R3, R2, "fail")

    def check_result(self, expected: int) -> None:
        """The last call's result must be this constant; told apart by a `va` of 0."""
        self.put(addi(R3, R0, 0), li(R1, 0), li(R2, expected))
        self.bne(R3, R2, "fail")

    def check_text(self, base: int, word: int) -> None:
        """Execute and read the program's own first instruction, where the kernel put it."""
        self.put(li(VA, base), fetch(VA), li(SCRATCH, word))
        self.check_word(VA, SCRATCH)

    def exit(self, status: int) -> None:
        self.call(Sys.EXIT, status)

    def store_pages(self, first: int, pages: int, step: int) -> None:
        """A word into each page from register VALUE on, `step` more in each; VALUE runs ahead."""
        self._each_page(first, pages, step, check=False)

    def check_pages(self, first: int, pages: int, step: int) -> None:
        self._each_page(first, pages, step, check=True)

    def _each_page(self, first: int, pages: int, step: int, *, check: bool) -> None:
        top = self.fresh("page")
        self.put(li(VA, first), li(END, first + pages * PAGE_STRIDE))
        self.label(top)
        if check:
            self.check_word(VA, VALUE)
        else:
            self.put(st(VALUE, VA))
        self.put(addi(VALUE, VALUE, step), addi(VA, VA, PAGE_STRIDE))
        self.bne(VA, END, top)

    def text(self) -> tuple[Insn, ...]:
        """The instructions, with `fail` at the end: r1, r2, r3 say what was wrong where."""
        if "fail" not in self.labels:
            self.label("fail")
            self.put(li(R0, Sys.FAIL), syscall())
        insns = list(self.insns)
        for at, name in self.branches:
            insns[at] = insns[at]._replace(imm=self.labels[name])
        return tuple(insns)


# A page, and a word further on in the next: neighbouring pages use different words.
PAGE_STRIDE = 4096 + 8
