"""The instructions of x86-64, executed by unicorn. The one module that imports it.

Unicorn sees no memory of the machine, only slots (slots.py), which are filled when its TLB has
nothing and asks the Tlb of the model (`_fill`). Its TLB is flushed before every run, so that it
never knows more than the model's does. A run changes registers and slots; the caller makes its
stores real afterwards or takes all of it back (`save`, `rollback`).

Traps of unicorn 2.1.4 that shape this: its TLB has a size that follows the wall clock; what a hook
raises looks like a page fault, or is lost (`_start`); an exception leaves a mark that makes the
next one a double fault, so that `rollback` follows each; count is kept by an internal hook whose
counter has no accessor and is found by running (unicorn_struct.py); the hook of a TLB miss is told
the page, and the byte is in a field of the same kind; what ends a run before its count leaves flags
that were never there, so that the run is made again up to there (`settle`).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Any, Final

import unicorn
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib
from vkprotocol.effects import CLOCK
from vkprotocol.param import PAGE_SIZE

from vkhost.pc64.cpu_access import tlb_permits
from vkhost.pc64.cpuid import cpuid
from vkhost.pc64.slots import SPARE_PAGE, TEXT_SLOTS, Slots, Touch, incoherent
from vkhost.pc64.tlb import Tlb, TlbEntry
from vkhost.pc64.unicorn_struct import address_offset, counter_offset
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE

CR0_TS: Final = 1 << 3
U64: Final = (1 << 64) - 1
# What is executed on our own behalf, by its place in the spare page; the image is behind it.
SYSRET, FXSAVE64, FXRSTOR64, FNINIT, JUMP_SELF, LOAD, IMAGE = 0, 16, 32, 48, 64, 80, 2048
OWN_CODE: Final = {
    SYSRET: "480f07", FXSAVE64: "480fae03", FXRSTOR64: "480fae0b", FNINIT: "dbe3",
    JUMP_SELF: "ebfe", LOAD: "488b03",
}  # fmt: skip
FXSAVE_BYTES: Final = 512
SPARE_VA: Final = 0x7000

DIVIDE, BREAKPOINT, INVALID, NO_FPU, PROTECTION, X87, SIMD = 0, 3, 6, 7, 13, 16, 19
TRAPS: Final = frozenset({BREAKPOINT})  # rip is behind the instruction; else it is at it
RDTSC: Final = b"\x0f\x31"

KIND: Final = {
    unicorn.UC_MEM_READ: VM_PROT_READ,
    unicorn.UC_MEM_WRITE: VM_PROT_WRITE,
    unicorn.UC_MEM_FETCH: VM_PROT_EXECUTE,
}
GPRS: Final = (
    x86.UC_X86_REG_RAX, x86.UC_X86_REG_RCX, x86.UC_X86_REG_RDX, x86.UC_X86_REG_RBX,
    x86.UC_X86_REG_RSP, x86.UC_X86_REG_RBP, x86.UC_X86_REG_RSI, x86.UC_X86_REG_RDI,
    x86.UC_X86_REG_R8, x86.UC_X86_REG_R9, x86.UC_X86_REG_R10, x86.UC_X86_REG_R11,
    x86.UC_X86_REG_R12, x86.UC_X86_REG_R13, x86.UC_X86_REG_R14, x86.UC_X86_REG_R15,
)  # fmt: skip
REGISTERS: Final = (*GPRS, x86.UC_X86_REG_RIP, x86.UC_X86_REG_RFLAGS, x86.UC_X86_REG_FS_BASE)


class UnicornCpu:
    """One virtual CPU of unicorn. Of a run remain: `executed`; and `missing` (va, fault type) for
    which the TLB has nothing, `exception`, or `syscall`, if one of these has ended it; `touched`,
    and in a run that is exact `accesses`: (is a store, byte in the slots, size, value).

    `alone`: the next instruction has to be run alone: it touches one page in two ways, or unicorn
    asks us about it. `spoilt`: registers are not as `executed` instructions leave them.
    """

    def __init__(self) -> None:
        self.slots = Slots()
        self.memory = self.slots.memory
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_NEHALEM)  # nothing that depends on the machine
        tcg_buffer = 8 << 20
        uc.ctl_set_tcg_buffer_size(tcg_buffer)
        uc.mem_map_ptr(0, SPARE_PAGE + PAGE_SIZE, unicorn.UC_PROT_ALL, address)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        uc.hook_add(unicorn.UC_HOOK_TLB_FILL, self._fill)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._syscall, None, 1, 0, x86.UC_X86_INS_SYSCALL)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._cpuid, None, 1, 0, x86.UC_X86_INS_CPUID)
        self._mem_hook: Any = None
        self._unraisable = sys.unraisablehook
        self.tlb: Tlb | None = None
        self._numbers = (ctypes.c_int * len(REGISTERS))(*REGISTERS)
        self._values = (ctypes.c_uint64 * len(REGISTERS))()
        at = ctypes.addressof(self._values)
        self._pointers = (ctypes.c_void_p * len(REGISTERS))(
            *(at + 8 * n for n in range(len(REGISTERS)))
        )
        self._handle = uc._uch
        self._rip = ctypes.pointer(ctypes.c_uint64())
        self._forget()
        for at, code in OWN_CODE.items():
            self.memory[SPARE_PAGE + at : SPARE_PAGE + at + len(code) // 2] = bytes.fromhex(code)
        self._user_mode()
        struct = self._struct()
        self._counter = ctypes.c_size_t.from_address(
            struct + counter_offset(struct, lambda count: self._own(JUMP_SELF, count))
        )
        self._address = ctypes.c_uint64.from_address(struct + address_offset(struct, self._miss))
        self.pristine = uc.context_save()
        self._saved = [uc.context_save(), uc.context_save()]

    # Setting up.

    def _forget(self) -> None:
        self.missing: tuple[int, int] | None = None
        self.exception: int | None = None
        self.syscall = False
        self.alone = False
        self.executed = 0
        self.spoilt = False
        self._spoils = 0  # what the counter said at an instruction that is to be run alone
        self.touched: dict[tuple[int, bool], Touch] = {}
        self.accesses: list[tuple[bool, int, int, int]] = []
        self.slots.next = TEXT_SLOTS
        self._data = True
        self._single = False

    def _user_mode(self) -> None:
        """To privilege level 3, by the only way there is: sysret."""
        uc = self.uc
        efer = 0xC0000080
        uc.msr_write(efer, uc.msr_read(efer) | 1)
        star = 0xC0000081
        uc.msr_write(star, 0x13 << 48 | 0x8 << 32)
        uc.reg_write(x86.UC_X86_REG_RCX, SPARE_VA)
        uc.reg_write(x86.UC_X86_REG_R11, 0x202)
        self._own(SYSRET)
        cr4_tsd = 1 << 2  # rdtsc traps, so that it can be answered by the virtual clock
        cr4_sse = 1 << 9 | 1 << 10
        uc.reg_write(x86.UC_X86_REG_CR4, uc.reg_read(x86.UC_X86_REG_CR4) | cr4_tsd | cr4_sse)

    def _own(self, code: int, count: int = 1) -> None:
        """Execute what is there in the spare page."""
        self.tlb = None
        self._flush()
        self._start(SPARE_VA + code, 0, count)

    def _flush(self) -> None:
        self.uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)

    def _struct(self) -> int:
        address = ctypes.cast(self._handle, ctypes.c_void_p).value
        assert address is not None
        return address

    def _miss(self, address: int) -> None:
        self.uc.reg_write(x86.UC_X86_REG_RBX, address)
        with contextlib.suppress(unicorn.UcError):
            self._own(LOAD)

    def reset(self) -> None:
        """As it was made."""
        self.uc.context_restore(self.pristine)
        self._forget()

    # Registers.

    def load(self, regs: tuple[int, ...], rip: int, rflags: int, fsbase: int, ts: bool) -> None:
        self._values[:] = [*regs, rip, rflags, fsbase]
        uclib.uc_reg_write_batch(self._handle, self._numbers, self._pointers, len(REGISTERS))
        cr0 = self.uc.reg_read(x86.UC_X86_REG_CR0)
        if bool(cr0 & CR0_TS) is not ts:
            self.uc.reg_write(x86.UC_X86_REG_CR0, cr0 ^ CR0_TS)

    def registers(self) -> tuple[int, ...]:
        """The sixteen, rip, rflags, fsbase."""
        uclib.uc_reg_read_batch(self._handle, self._numbers, self._pointers, len(REGISTERS))
        return tuple(self._values)

    @property
    def rip(self) -> int:
        uclib.uc_reg_read(self._handle, x86.UC_X86_REG_RIP, self._rip)
        return self._rip.contents.value

    def save(self, place: int = 0) -> None:
        """In one of two places."""
        self.uc.context_update(self._saved[place])

    def rollback(self, place: int = 0) -> None:
        """The registers as saved there."""
        self.uc.context_restore(self._saved[place])

    def skip(self, length: int) -> None:
        self.uc.reg_write(x86.UC_X86_REG_RIP, self.rip + length)

    def rdtsc(self) -> None:
        """Answered by the virtual clock: one tick a nanosecond."""
        u32 = (1 << 32) - 1
        self.uc.reg_write(x86.UC_X86_REG_RAX, CLOCK[0] & u32)
        self.uc.reg_write(x86.UC_X86_REG_RDX, CLOCK[0] >> 32 & u32)
        self.skip(len(RDTSC))

    # Running.

    def run(self, tlb: Tlb, count: int, *, exact: bool, data: bool = True) -> None:
        """Up to `count` instructions at rip. `exact`: with `accesses`. Not `data`: stop before
        anything but a fetch."""
        self._forget()
        self.tlb = tlb
        self._data = data
        self._single = count == 1
        if exact is (self._mem_hook is None):
            self._hook(exact)
        if self.slots.full():
            self.uc.ctl_flush_tb()
        self._flush()
        rip = self.rip
        until = int(rip == 0)  # which ends a run: an address where nothing is, mostly
        try:
            self._start(rip, until, count)
        except unicorn.UcError as error:
            if error.errno == unicorn.UC_ERR_INSN_INVALID:
                self.exception = INVALID
            elif self.missing is None and not self.alone:
                raise
        if self.missing is not None:
            self.missing = (self._address.value, self.missing[1])
        counted = self._counter.value
        # One that faults was counted, and so was one more when all have run; not a system call,
        # nor what could not even be fetched.
        unfetched = self.missing is not None and self.missing[1] == VM_PROT_EXECUTE
        exactly = self.syscall or unfetched or self.rip == until
        self.executed = min(counted if exactly else counted - 1, count)
        if self._spoils:
            self.executed = self._spoils - 1
        early = self.missing is not None or self.alone or self.exception is not None
        self.spoilt = early and (self.exception not in TRAPS or bool(self.executed))

    def settle(self, tlb: Tlb, place: int, *, exact: bool, data: bool = True) -> None:
        """After a run that began as saved there: the registers as `executed` instructions leave
        them. What has ended it is met again when it comes first."""
        if not self.spoilt:
            return
        self.rollback(place)
        if self.executed:
            missing = self.missing
            self.run(tlb, self.executed, exact=exact, data=data)
            self.missing = missing

    def _hook(self, exact: bool) -> None:
        if exact:
            kinds = unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE
            self._mem_hook = self.uc.hook_add(kinds, self._access)
        else:
            self.uc.hook_del(self._mem_hook)
            self._mem_hook = None
        self.uc.ctl_flush_tb()

    def _start(self, rip: int, until: int, count: int) -> None:
        """What is raised in a hook is raised here. Unicorn keeps it, but says its own error when
        the hook's answer makes one; and what ctypes meets before the hook's first line, as an
        interrupt often is, it gives to the unraisable hook."""
        uc: Any = self.uc
        self._unraisable = sys.unraisablehook
        try:
            sys.unraisablehook = self._raised
            uc.emu_start(rip, until, count=count)
        except unicorn.UcError:
            if uc._hook_exception is not None:
                raise uc._hook_exception from None
            raise
        finally:
            sys.unraisablehook = self._unraisable

    def _raised(self, what: Any) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt):
            uc: Any = self.uc
            uc._hook_exception = what.exc_value
            uc.emu_stop()
        else:
            self._unraisable(what)

    def _fill(self, uc: Any, va: int, access: int, out: Any, _: Any) -> bool:
        if self.tlb is None:
            if va != SPARE_VA:
                return False
            out.paddr, out.perms = SPARE_PAGE, unicorn.UC_PROT_ALL
            return True
        kind = KIND[access]
        if kind != VM_PROT_EXECUTE and not self._data:
            self.alone = True
            return False
        vpn = va >> 12
        slot = self.tlb.slots.get(vpn)
        entry: TlbEntry | None = None if slot is None else slot.state
        if entry is None or not tlb_permits(entry, kind):
            self.missing = (va, kind)
            return False
        text = kind == VM_PROT_EXECUTE
        touch = self.touched.get((vpn, text))
        pages = self.touched.values()
        touched_max = 128  # pages of one run
        if not self._single and (
            incoherent(pages, touch, entry.pfn, kind) or len(pages) >= touched_max
        ):
            self.alone = True
            return False
        if touch is None:
            at = self.slots.text(entry) if text else self.slots.data(entry)
            touch = self.touched[vpn, text] = Touch(vpn, entry, kind, at, self.rip)
        if kind == VM_PROT_WRITE and not touch.before:
            touch.kind = kind
            touch.before = self.slots.page(touch.slot)
        out.paddr = touch.slot * PAGE_SIZE
        if text:
            out.perms = unicorn.UC_PROT_EXEC
        elif touch.kind == VM_PROT_WRITE:
            out.perms = unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
        else:
            out.perms = unicorn.UC_PROT_READ
        return True

    def text_at(self, rip: int, length: int = 15) -> bytes:
        """What the run has fetched from there on."""
        found = b""
        for touch in self.touched.values():
            if touch.kind == VM_PROT_EXECUTE and touch.vpn == (rip + len(found)) >> 12:
                page = self.slots.page(touch.slot)
                found += page[(rip + len(found)) & 4095 :][: length - len(found)]
        return found

    def _access(self, uc: Any, access: int, at: int, size: int, value: int, _: Any) -> None:
        self.accesses.append((access == unicorn.UC_MEM_WRITE, at, size, value & U64))

    def _interrupt(self, uc: Any, number: int, _: Any) -> None:
        self.exception = number
        uc.emu_stop()

    def _syscall(self, uc: Any, _: Any) -> None:
        if self._single:
            self.syscall = True
        else:
            self._alone()
        uc.emu_stop()

    def _alone(self) -> None:
        self.alone = True
        self._spoils = self._counter.value

    def _cpuid(self, uc: Any, _: Any) -> int:
        """The host's, whatever the vkernel thinks of it: a vkernel cannot make CPUID trap."""
        if not self._single:
            if not self._spoils:
                self._alone()
                uc.emu_stop()
            return 1
        leaf = uc.reg_read(x86.UC_X86_REG_EAX)
        subleaf = uc.reg_read(x86.UC_X86_REG_ECX)
        registers = (
            x86.UC_X86_REG_RAX, x86.UC_X86_REG_RBX, x86.UC_X86_REG_RCX, x86.UC_X86_REG_RDX,
        )  # fmt: skip
        for register, value in zip(registers, cpuid(leaf, subleaf), strict=True):
            uc.reg_write(register, value)
        return 1

    # The FPU, for the kernels.

    def fxsave(self) -> bytes:
        """The 512 bytes of fxsave64."""
        self._fpu(FXSAVE64)
        return self.memory[SPARE_PAGE + IMAGE : SPARE_PAGE + IMAGE + FXSAVE_BYTES]

    def fxrstor(self, image: bytes) -> None:
        self.memory[SPARE_PAGE + IMAGE : SPARE_PAGE + IMAGE + FXSAVE_BYTES] = image
        self._fpu(FXRSTOR64)
        # Which unicorn does not restore.
        self.uc.reg_write(x86.UC_X86_REG_FIP, int.from_bytes(image[8:16], "little"))

    def fninit(self) -> None:
        self._fpu(FNINIT)

    def _fpu(self, code: int) -> None:
        """Executed as the kernel would, TS clear; the other registers stay as they are."""
        *regs, rip, rflags, fsbase = self.registers()
        cr0 = self.uc.reg_read(x86.UC_X86_REG_CR0)
        self.uc.reg_write(x86.UC_X86_REG_CR0, cr0 & ~CR0_TS)
        self.uc.reg_write(x86.UC_X86_REG_RBX, SPARE_VA + IMAGE)
        self._own(code)
        self.load(tuple(regs), rip, rflags, fsbase, bool(cr0 & CR0_TS))


_idle: list[UnicornCpu] = []  # made, used and reset: one takes milliseconds to make


def take() -> UnicornCpu:
    return _idle.pop() if _idle else UnicornCpu()


def give_back(machine: UnicornCpu) -> None:
    machine.reset()
    _idle.append(machine)
