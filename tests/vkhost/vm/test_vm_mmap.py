"""Validation of the mmap family: every errno, and that the earlier check wins."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.errno import Errno
from vkprotocol.mman import (
    MADV_INVAL,
    MADV_SETMAP,
    MAP_ANON,
    MAP_FIXED,
    MAP_NOCORE,
    MAP_NOSYNC,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SIZEALIGN,
    MAP_STACK,
    MAP_TRYFIXED,
    MAP_VPAGETABLE,
    MS_ASYNC,
    MS_INVALIDATE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import SEG_SIZE, VM_MAX_USER_ADDRESS

from tests.vkhost.vkernel import FD, Vkernel
from vkhost.kern.lwp import File
from vkhost.quirks import Quirks
from vkhost.vm.vm import MAP_ENTRY_NOCOREDUMP, MAP_ENTRY_NOSYNC, VM_INHERIT_COPY, VM_INHERIT_SHARE
from vkhost.vm.vm_mmap import (
    MMAP_BASE,
    kern_mcontrol,
    kern_mmap,
    kern_munmap,
    sys_madvise,
    sys_mmap,
    sys_msync,
)

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
U64 = (1 << 64) - 1
RW = PROT_READ | PROT_WRITE
RO_FD, WO_FD, NO_FD = 5, 6, 99


class Mmap(Vkernel):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.proc.files[RO_FD] = File(self.vnode, fread=True, fwrite=False)
        self.proc.files[WO_FD] = File(self.vnode, fread=False, fwrite=True)

    def try_mmap(self, **given: Any) -> tuple[int, int]:
        wanted: dict[str, Any] = {
            "addr": 0, "length": PAGE, "prot": RW, "flags": MAP_SHARED, "fd": FD, "offset": 0,
        }  # fmt: skip
        wanted |= given
        found: tuple[int, int] = self.do(kern_mmap(self.own, self.proc, **wanted))
        return found

    def ranges(self) -> list[tuple[int, int]]:
        return [(entry.start, entry.end) for entry in self.own.vm_map.entries]


# In the order in which kern_mmap looks: each with all that would be wrong later, too.
REFUSALS: list[tuple[str, dict[str, Any], int]] = [
    ("anonymous with a descriptor", {"flags": MAP_ANON, "length": 0}, Errno.EINVAL),
    ("anonymous at an offset", {"flags": MAP_ANON, "fd": -1, "offset": PAGE}, Errno.EINVAL),
    ("nothing to map", {"length": 0, "flags": MAP_VPAGETABLE, "prot": 0}, Errno.EINVAL),
    ("page table on a stack", {"flags": MAP_VPAGETABLE | MAP_STACK | MAP_ANON, "fd": -1},
     Errno.EINVAL),
    ("page table not writable", {"flags": MAP_VPAGETABLE, "prot": PROT_READ, "fd": NO_FD},
     Errno.EINVAL),
    ("page table not readable", {"flags": MAP_VPAGETABLE, "prot": PROT_WRITE | PROT_EXEC},
     Errno.EINVAL),
    ("a size that wraps", {"length": U64, "flags": MAP_FIXED, "addr": 1, "fd": NO_FD},
     Errno.EINVAL),
    ("fixed and unaligned", {"flags": MAP_FIXED, "addr": 8, "fd": NO_FD}, Errno.EINVAL),
    ("fixed beyond the user's", {"flags": MAP_FIXED, "addr": VM_MAX_USER_ADDRESS, "fd": NO_FD},
     Errno.EINVAL),
    ("fixed and wrapping", {"flags": MAP_FIXED, "addr": U64 & ~0xFFF, "fd": NO_FD}, Errno.EINVAL),
    ("no such descriptor", {"fd": NO_FD, "prot": PROT_READ}, Errno.EBADF),
    ("read of a write-only file", {"fd": WO_FD, "prot": PROT_READ}, Errno.EACCES),
    ("shared write of a read-only file", {"fd": RO_FD}, Errno.EACCES),
    ("an alignment that is none", {"flags": MAP_SHARED | MAP_SIZEALIGN, "length": 3 * PAGE},
     Errno.EINVAL),
    ("no room", {"flags": MAP_ANON, "fd": -1, "length": VM_MAX_USER_ADDRESS}, Errno.ENOMEM),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error"), [r[1:] for r in REFUSALS], ids=[r[0].replace(" ", "-") for r in REFUSALS]
)
def test_mmap_refuses(given: dict[str, Any], error: int) -> None:
    k = Mmap()

    assert k.try_mmap(**given) == (error, 0)
    assert k.ranges() == []
    assert k.vnode.object is None or k.vnode.object.ref_count.value == 0


@pytest.mark.parametrize("flags", [MAP_VPAGETABLE, MAP_VPAGETABLE | MAP_FIXED])
def test_a_disabled_vkernel_is_the_first_thing_said_of_a_page_table(flags: int) -> None:
    k = Mmap(vkernel_enable=False)

    assert k.try_mmap(flags=flags, prot=0, addr=3)[0] == Errno.EOPNOTSUPP
    assert k.try_mmap(flags=flags, length=0)[0] == Errno.EINVAL


def test_the_kernel_without_the_feature_refuses_it() -> None:
    k = Mmap(policy="removed")

    assert k.try_mmap(flags=MAP_SHARED | MAP_VPAGETABLE)[0] == Errno.EOPNOTSUPP
    assert k.try_mmap()[0] == 0


def test_limits_of_entries_and_of_address_space() -> None:
    k = Mmap()
    k.proc.rlimit_vmem = 2 * PAGE

    assert k.try_mmap(length=3 * PAGE)[0] == Errno.ENOMEM
    assert k.try_mmap(length=2 * PAGE)[0] == 0
    assert k.try_mmap(length=1)[0] == Errno.ENOMEM
    k.proc.rlimit_vmem = None
    k.proc.max_proc_mmap = 1
    assert k.try_mmap()[0] == Errno.ENOMEM


def test_the_limit_is_not_for_guest_vmspaces() -> None:
    from vkhost.vm.vmspace import vmspace_alloc

    k = Mmap()
    k.proc.rlimit_vmem = PAGE
    guest = vmspace_alloc(k.kernel, "guest", k.proc)

    found = k.do(kern_mmap(guest, k.proc, 0, 4 * PAGE, RW, MAP_SHARED, FD, 0))
    assert found[0] == 0


def test_what_an_entry_gets_from_its_flags() -> None:
    k = Mmap()
    k.try_mmap(flags=MAP_SHARED | MAP_FIXED | MAP_VPAGETABLE | MAP_NOSYNC, addr=0)
    k.try_mmap(flags=MAP_PRIVATE | MAP_FIXED | MAP_NOCORE, addr=PAGE, offset=3 * PAGE, fd=RO_FD)
    shared, private = k.own.vm_map.entries

    assert (shared.inheritance, private.inheritance) == (VM_INHERIT_SHARE, VM_INHERIT_COPY)
    assert (shared.maptype, private.maptype) == (2, 1)
    assert shared.eflags == MAP_ENTRY_NOSYNC
    assert private.eflags & MAP_ENTRY_NOCOREDUMP
    assert private.eflags & 0xC == 0xC  # COW, NEEDS_COPY
    assert private.ba.offset == 3 * PAGE
    assert (private.max_protection, shared.master_pde) == (7, 0)


def test_a_fixed_mapping_replaces_and_a_tryfixed_one_does_not() -> None:
    k = Mmap()
    k.try_mmap(flags=MAP_SHARED | MAP_FIXED, addr=0, length=4 * PAGE)

    assert k.try_mmap(flags=MAP_SHARED | MAP_TRYFIXED, addr=PAGE)[0] == Errno.ENOMEM
    assert k.ranges() == [(0, 4 * PAGE)]
    assert k.try_mmap(flags=MAP_ANON | MAP_FIXED, addr=PAGE, fd=-1) == (0, PAGE)
    assert k.ranges() == [(0, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, 4 * PAGE)]


def test_where_an_unplaced_mapping_goes() -> None:
    k = Mmap()

    assert k.try_mmap(length=PAGE) == (0, MMAP_BASE)
    assert k.try_mmap(length=PAGE) == (0, MMAP_BASE + PAGE)
    assert k.try_mmap(length=SEG_SIZE) == (0, MMAP_BASE + SEG_SIZE)
    assert k.try_mmap(addr=5 * PAGE + 1) == (0, 6 * PAGE)
    assert k.try_mmap(flags=MAP_SHARED | MAP_SIZEALIGN, length=8 * PAGE, addr=PAGE) == (0, 8 * PAGE)


def test_an_offset_within_a_page_comes_back_in_the_address() -> None:
    k = Mmap()

    assert k.try_mmap(offset=PAGE + 16, length=PAGE) == (0, MMAP_BASE + 16)
    assert k.ranges() == [(MMAP_BASE, MMAP_BASE + 2 * PAGE)]
    assert k.try_mmap(flags=MAP_SHARED | MAP_FIXED, offset=16, addr=16) == (0, 16)


def test_mmap2_makes_stacks_ordinary_memory() -> None:
    k = Mmap()

    async def stack(prot: int, fd: int, offset: int) -> tuple[int, int]:
        return await sys_mmap(k.proc, 0, PAGE, prot, MAP_STACK | MAP_PRIVATE, fd, offset)

    assert k.do(stack(RW, FD, 0))[0] == Errno.EINVAL
    assert k.do(stack(PROT_READ, -1, 0))[0] == Errno.EINVAL
    assert k.do(stack(RW, -1, PAGE))[0] == 0


def test_mmap2_refuses_a_page_table_on_a_stack() -> None:
    """MAP_STACK used to be taken off first, so that the mapping succeeded."""
    k = Mmap()

    async def page_table(prot: int, fd: int) -> tuple[int, int]:
        flags = MAP_STACK | MAP_SHARED | MAP_VPAGETABLE
        return await sys_mmap(k.proc, 0, PAGE, prot, flags, fd, 0)

    assert k.do(page_table(RW, FD))[0] == Errno.EINVAL
    k.kernel.vmmeter.tunables["vkernel_enable"] = 0
    assert k.do(page_table(PROT_READ, FD))[0] == Errno.EOPNOTSUPP


def test_counter_and_debug_line_of_a_page_table_mapping() -> None:
    k = Mmap()
    k.kernel.vmmeter.tunables["debug_vpagetable"] = 1
    k.try_mmap(flags=MAP_SHARED | MAP_VPAGETABLE | MAP_FIXED, addr=PAGE)
    k.try_mmap(flags=MAP_SHARED | MAP_VPAGETABLE, prot=0)

    assert k.kernel.vmmeter.vpagetable["vpagetable_mmap"].value == 1
    assert k.named("console") == [
        ("console", f"MAP_VPAGETABLE: addr=1000 size=1000 pid={k.proc.pid}")
    ]


# munmap.


@pytest.mark.parametrize(
    ("addr", "length", "error"),
    [
        (0, U64, Errno.EINVAL),  # rounding wraps
        (PAGE, U64 & ~0x1FFF, Errno.EINVAL),  # a hole
        (U64 & ~0xFFF, 2 * PAGE, Errno.EINVAL),  # the end wraps
        (VM_MAX_USER_ADDRESS + PAGE, 0, 0),  # nothing, wherever
        (VM_MAX_USER_ADDRESS, PAGE, Errno.EINVAL),
        (0, 5 * PAGE, Errno.EINVAL),  # a hole at the end
        (8 * PAGE, PAGE, Errno.EINVAL),  # nothing there
        (PAGE + 5, 1, 0),  # a page
        (0, 4 * PAGE, 0),
    ],
)
def test_munmap(addr: int, length: int, error: int) -> None:
    k = Mmap()
    k.try_mmap(flags=MAP_SHARED | MAP_FIXED, addr=0, length=4 * PAGE)
    before = k.ranges()

    assert k.do(kern_munmap(k.own, addr, length)) == error
    assert (k.ranges() == before) is (error != 0 or length == 0)


def test_munmap_of_a_middle_leaves_both_sides() -> None:
    k = Mmap()
    k.try_mmap(flags=MAP_SHARED | MAP_FIXED, addr=0, length=4 * PAGE)
    k.do(kern_munmap(k.own, PAGE, 2 * PAGE))

    assert k.ranges() == [(0, PAGE), (3 * PAGE, 4 * PAGE)]
    assert k.own.vm_map.entries[1].ba.offset == 3 * PAGE
    assert k.named("map.remove") == [("map.remove", "vkernel", PAGE, 3 * PAGE)]


def test_munmap_removes_the_ptes_first_and_shoots_them_down() -> None:
    """W21; and the mutant that does it the other way round."""
    for mutants, first in (((), "pte.write"), (("munmap-entries-first",), "map.remove")):
        k = Mmap(mutants=mutants)
        k.try_mmap(flags=MAP_SHARED | MAP_FIXED, addr=0, length=4 * PAGE)
        k.fault(PAGE, 1)
        del k.events[:]
        k.do(kern_munmap(k.own, 0, 4 * PAGE))

        assert k.named("pte.write", "map.remove")[0][0] == first


# madvise, mcontrol.


@pytest.mark.parametrize(
    ("behav", "addr", "length", "error"),
    [
        (-1, U64, U64, Errno.EINVAL),
        (12, 0, PAGE, Errno.EINVAL),
        (MADV_INVAL, U64, PAGE, Errno.EINVAL),  # wraps
        (MADV_INVAL, VM_MAX_USER_ADDRESS - PAGE, 2 * PAGE, Errno.EINVAL),  # W18
        (MADV_INVAL, VM_MAX_USER_ADDRESS - PAGE, PAGE, 0),
        (MADV_SETMAP, 0, PAGE, 0),
    ],
)
def test_mcontrol(behav: int, addr: int, length: int, error: int) -> None:
    k = Mmap()
    k.try_mmap(flags=MAP_SHARED | MAP_FIXED | MAP_VPAGETABLE, addr=0, length=4 * PAGE)

    assert k.do(kern_mcontrol(k.own, addr, length, behav, 5)) == error


def test_madvise_allows_inval_and_not_setmap() -> None:
    k = Mmap()

    assert k.do(sys_madvise(k.proc, 0, PAGE, MADV_INVAL)) == 0
    assert k.do(sys_madvise(k.proc, 0, PAGE, MADV_SETMAP)) == Errno.EINVAL


@pytest.mark.parametrize(
    ("addr", "quirk", "removed"),
    [(PAGE + 8, True, True), (PAGE + 8, False, False), (PAGE, True, False)],
)
def test_a_length_of_zero(addr: int, quirk: bool, removed: bool) -> None:
    k = Mmap(quirks=Quirks(len0_unaligned_page=quirk))
    k.try_mmap(flags=MAP_SHARED | MAP_FIXED, addr=0, length=4 * PAGE)
    k.fault(PAGE, 1)

    assert k.do(kern_mcontrol(k.own, addr, 0, MADV_INVAL, 0)) == 0
    assert (k.mapped(PAGE) is None) is removed


# msync.


@pytest.mark.parametrize(
    ("addr", "length", "flags", "error"),
    [
        (0, U64, 0, Errno.EINVAL),
        (U64 & ~0xFFF, 2 * PAGE, 0, Errno.EINVAL),
        (0, PAGE, MS_ASYNC | MS_INVALIDATE, Errno.EINVAL),
        (0, 5 * PAGE, 0, Errno.EINVAL),  # a hole
        (8 * PAGE, 0, 0, Errno.EINVAL),  # no entry there
        (0, PAGE, 0, 0),
        (2 * PAGE, 0, 0, 0),  # all of the entry
    ],
)
def test_msync_validates(addr: int, length: int, flags: int, error: int) -> None:
    k = Mmap()
    k.try_mmap(flags=MAP_SHARED | MAP_FIXED, addr=0, length=4 * PAGE)

    assert k.do(sys_msync(k.proc, addr, length, flags)) == error
