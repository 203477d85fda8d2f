"""Entries: what is mapped where, through clipping, merging, protecting, unmapping and forking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vkhost.vkernel import FD, Vkernel
from vkhost.vm.vm import (
    KERN_INVALID_ADDRESS,
    KERN_INVALID_ARGUMENT,
    KERN_NO_SPACE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_USER_WIRED,
    VM_INHERIT_COPY,
    VM_INHERIT_NONE,
    VM_INHERIT_SHARE,
    VM_MAPTYPE_NORMAL,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_map import (
    VmMap,
    vm_map_check_protection,
    vm_map_find,
    vm_map_findspace,
    vm_map_insert,
    vm_map_lock,
    vm_map_unlock,
)
from vkhost.vm.vm_map_clip import vm_map_clip_end, vm_map_clip_start
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_lookup import Lookup, vm_map_lookup
from vkhost.vm.vm_map_protect import vm_map_inherit, vm_map_protect
from vkhost.vm.vm_mmap import kern_mmap

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE, ALL = 1, 3, 7
PAGES = 24
SHARED, PRIVATE, FIXED, ANON = 0x1, 0x2, 0x10, 0x1000


@dataclass(frozen=True)
class Page:
    """What the reference knows of one page: of which object which page, and what is allowed."""

    object: str
    index: int
    prot: int
    inherit: int


def pages_of(k: Vkernel) -> dict[int, Page]:
    """The map, page by page. Anonymous memory has no identity before it is touched."""
    found = {}
    for entry in k.own.vm_map.entries:
        anonymous = entry.ba.object is None or entry.ba.object is not k.vnode.object
        for va in range(entry.start, entry.end, PAGE):
            index = 0 if anonymous else (va - entry.start + entry.ba.offset) // PAGE
            name = "anon" if anonymous else "image"
            found[va // PAGE] = Page(name, index, entry.protection, entry.inheritance)
    return found


def consistent(vm_map: VmMap) -> None:
    """Entries in order; every backing on its object's list, exactly once; size is their sum."""
    ends = 0
    expected: list[tuple[int, int, int]] = []
    objects = {}
    for entry in vm_map.entries:
        assert ends <= entry.start < entry.end
        ends = entry.end
        for ba in entry.backings():
            if ba.object is not None:
                objects[ba.object.id] = ba.object
                expected.append((ba.start, ba.end, ba.offset))
                assert any(ba is other for other in ba.object.backing_list)
    listed = [
        (ba.start, ba.end, ba.offset)
        for obj in objects.values()
        for ba in obj.backing_list
        if ba.pmap is vm_map.pmap
    ]
    assert sorted(listed) == sorted(expected)
    assert vm_map.size == sum(entry.end - entry.start for entry in vm_map.entries)
    for obj in objects.values():
        assert obj.ref_count.value == len(obj.backing_list)
    for start, length, align in ((0, 1, 1), (0, 2, 1), (5, 2, 1), (3, 3, 4), (0, 20, 1)):
        asked = start * PAGE, length * PAGE, align * PAGE
        # What it remembers of the time before makes it faster and not wrong.
        assert vm_map_findspace(vm_map, *asked) == first_fit(vm_map, *asked)


def first_fit(vm_map: VmMap, start: int, length: int, align: int) -> int | None:
    """Try them all."""
    taken = [(entry.start, entry.end) for entry in vm_map.entries]
    start = -(-max(start, vm_map.min_offset) // align) * align
    while any(s < start + length and start < e for s, e in taken):
        start += align
    return start if start + length <= vm_map.max_offset else None


RANGE = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 8)).map(
    lambda r: (r[0], min(PAGES, r[0] + r[1]))
)
OPERATION = st.one_of(
    st.tuples(st.just("image"), RANGE, st.integers(0, 30)),
    st.tuples(st.just("anon"), RANGE, st.just(0)),
    st.tuples(st.just("munmap"), RANGE, st.just(0)),
    st.tuples(st.just("protect"), RANGE, st.sampled_from([0, READ, WRITE, ALL])),
    st.tuples(st.just("inherit"), RANGE, st.sampled_from([0, 1, 2])),
)


@pytest.mark.slow
@given(st.lists(OPERATION, max_size=8))
@settings(max_examples=60)
def test_the_map_is_what_a_list_of_pages_would_be(operations: list[Any]) -> None:
    k = Vkernel()
    reference: dict[int, Page] = {}
    for name, (start, end), argument in operations:
        span = range(start, end)
        apply(k, name, start * PAGE, end * PAGE, argument)
        if name == "image":
            reference |= {
                page: Page("image", page - start + argument, ALL, VM_INHERIT_SHARE) for page in span
            }
        elif name == "anon":
            reference |= {page: Page("anon", 0, ALL, VM_INHERIT_COPY) for page in span}
        elif name == "munmap":
            for page in span:
                reference.pop(page, None)
        else:
            field = {"protect": "prot", "inherit": "inherit"}[name]
            for page in span:
                if page in reference:
                    reference[page] = replace(reference[page], **{field: argument})

        assert pages_of(k) == reference
        consistent(k.own.vm_map)


def apply(k: Vkernel, name: str, start: int, end: int, argument: int) -> None:
    vm_map = k.own.vm_map
    if name in ("image", "anon"):
        flags, fd = (SHARED, FD) if name == "image" else (ANON, -1)
        found = k.do(
            kern_mmap(k.own, k.proc, start, end - start, ALL, flags | FIXED, fd, argument * PAGE)
        )
        assert found == (0, start)
    elif name == "munmap":
        k.do(vm_map_remove(vm_map, start, end))
    elif name == "protect":
        assert k.do(vm_map_protect(vm_map, start, end, argument)) == KERN_SUCCESS
    else:
        assert k.do(vm_map_inherit(vm_map, start, end, argument)) == KERN_SUCCESS


def insert(k: Vkernel, start: int, end: int, prot: int = ALL) -> int:
    async def body() -> int:
        await vm_map_lock(k.own.vm_map)
        result = await vm_map_insert(
            k.own.vm_map, None, 0, start, end, VM_MAPTYPE_NORMAL, prot, ALL, 0
        )
        await vm_map_unlock(k.own.vm_map)
        return result

    result: int = k.do(body())
    return result


@pytest.mark.parametrize(
    ("start", "end", "result"),
    [
        (PAGE, 2 * PAGE, KERN_NO_SPACE),
        (0, 8 * PAGE, KERN_NO_SPACE),
        (3 * PAGE, 5 * PAGE, KERN_NO_SPACE),
        (3 * PAGE, 4 * PAGE, KERN_SUCCESS),
        (PAGE, PAGE, KERN_INVALID_ADDRESS),
        (0, 1 << 48, KERN_INVALID_ADDRESS),
        (-PAGE, 0, KERN_INVALID_ADDRESS),
    ],
)
def test_insert_only_where_nothing_is(start: int, end: int, result: int) -> None:
    k = Vkernel()
    insert(k, PAGE, 3 * PAGE)
    insert(k, 4 * PAGE, 6 * PAGE)

    assert insert(k, start, end) == result


def test_findspace_is_first_fit() -> None:
    k = Vkernel()
    insert(k, PAGE, 3 * PAGE)
    insert(k, 4 * PAGE, 6 * PAGE)

    async def find(start: int, length: int, align: int = PAGE) -> int | None:
        await vm_map_lock(k.own.vm_map)
        found = vm_map_findspace(k.own.vm_map, start, length, align)
        await vm_map_unlock(k.own.vm_map)
        return found

    assert k.do(find(0, PAGE)) == 0
    assert k.do(find(0, 2 * PAGE)) == 6 * PAGE
    assert k.do(find(2 * PAGE, PAGE)) == 3 * PAGE
    assert k.do(find(2 * PAGE, PAGE, 4 * PAGE)) == 8 * PAGE
    assert k.do(find(0, 1 << 47)) is None


def test_find_says_when_there_is_no_room() -> None:
    k = Vkernel()

    async def find(length: int) -> tuple[int, int]:
        return await vm_map_find(
            k.own.vm_map, None, 0, PAGE, length, PAGE, True, VM_MAPTYPE_NORMAL, ALL, ALL, 0
        )

    assert k.do(find(1 << 47)) == (KERN_NO_SPACE, 0)
    assert k.do(find(PAGE)) == (KERN_SUCCESS, PAGE)


def test_check_protection_wants_every_page() -> None:
    k = Vkernel()
    insert(k, PAGE, 3 * PAGE)
    insert(k, 3 * PAGE, 4 * PAGE, READ)

    def allowed(start: int, end: int, prot: int) -> bool:
        found: bool = k.do(vm_map_check_protection(k.own.vm_map, start * PAGE, end * PAGE, prot))
        return found

    assert allowed(1, 4, VM_PROT_READ)
    assert not allowed(1, 4, VM_PROT_WRITE)
    assert not allowed(0, 2, 0)
    assert not allowed(3, 5, 0)


def test_clipping_keeps_every_page_on_the_backing_list() -> None:
    """The extent scan must find a page at any moment of it."""
    k = Vkernel()
    k.mmap(k.own, 0, 8 * PAGE, SHARED)
    [entry] = k.own.vm_map.entries
    obj = k.vnode.object
    assert obj is not None
    listed: list[bool] = []

    async def clip() -> None:
        await vm_map_lock(k.own.vm_map)
        await vm_map_clip_start(k.own.vm_map, entry, 2 * PAGE)
        await vm_map_clip_end(k.own.vm_map, entry, 5 * PAGE)
        await vm_map_unlock(k.own.vm_map)

    thread = k.spawn("clip", clip())
    while not thread.done:
        k.step(thread)
        listed.append(
            all(any(ba.start <= va < ba.end for ba in obj.backing_list)
                for va in range(0, 8 * PAGE, PAGE))
        )  # fmt: skip

    assert all(listed)
    assert [e.start // PAGE for e in k.own.vm_map.entries] == [0, 2, 5]
    consistent(k.own.vm_map)


def test_protect_is_all_or_nothing() -> None:
    k = Vkernel()
    insert(k, 0, PAGE)
    insert(k, PAGE, 2 * PAGE)
    k.own.vm_map.entries[1].max_protection = READ

    result = k.do(vm_map_protect(k.own.vm_map, 0, 2 * PAGE, WRITE))
    assert result == KERN_PROTECTION_FAILURE
    assert k.own.vm_map.entries[0].protection == ALL


def test_protect_write_protects_the_ptes_of_the_range_only() -> None:
    k = Vkernel()
    k.mmap(k.own, 0, 4 * PAGE, SHARED)
    for page in range(4):
        k.fault(page * PAGE, VM_PROT_WRITE)
    k.do(vm_map_protect(k.own.vm_map, PAGE, 3 * PAGE, READ))

    assert [k.mapped(page * PAGE) for page in range(4)] == [
        (0, 7),
        (1, 5),
        (2, 5),
        (3, 7),
    ]  # NX is never added


def test_inherit_knows_its_values() -> None:
    k = Vkernel()

    assert k.do(vm_map_inherit(k.own.vm_map, 0, PAGE, 3)) == KERN_INVALID_ARGUMENT
    assert k.do(vm_map_inherit(k.own.vm_map, 0, PAGE, VM_INHERIT_NONE)) == KERN_SUCCESS


def lookup(k: Vkernel, va: int, fault_type: int) -> Lookup | int:
    async def body() -> Lookup | int:
        found = await vm_map_lookup(k.own.vm_map, va, fault_type)
        if isinstance(found, Lookup):
            await vm_map_unlock(k.own.vm_map)
        return found

    found: Lookup | int = k.do(body())
    assert k.own.vm_map.lock.state == (None, (), 0)
    return found


def test_lookup_fails_with_the_map_unlocked() -> None:
    k = Vkernel()
    insert(k, 0, PAGE, READ)

    assert lookup(k, PAGE, READ) == KERN_INVALID_ADDRESS
    assert lookup(k, 0, VM_PROT_WRITE) == KERN_PROTECTION_FAILURE
    k.own.vm_map.entries[0].protection = ALL
    k.own.vm_map.entries[0].eflags |= MAP_ENTRY_USER_WIRED | 0x4
    assert lookup(k, 0, VM_PROT_WRITE) == KERN_PROTECTION_FAILURE
    assert isinstance(lookup(k, 0, READ), Lookup)


def test_lookup_makes_the_object_and_the_shadow_under_the_exclusive_lock() -> None:
    k = Vkernel()
    insert(k, 0, 4 * PAGE)
    found = lookup(k, PAGE, READ)
    assert isinstance(found, Lookup)

    assert found.first_ba.object is not None
    assert found.first_ba.object.size == 4
    exclusive = [event[2] for event in k.named("map.lock")][-2:]
    assert exclusive == [True, False]  # upgraded, downgraded


@pytest.mark.parametrize(("as_write", "shadowed"), [(True, True), (False, False)])
def test_f2_a_private_page_table_is_shadowed_at_once(as_write: bool, shadowed: bool) -> None:
    """W27: A is going to be written into the tables even by a read."""
    from vkhost.quirks import Quirks

    k = Vkernel(quirks=Quirks(lookup_vpagetable_as_write=as_write))
    k.mmap(k.own, 0, 8 * PAGE, PRIVATE | 0x2000)
    lookup(k, 0, READ)

    assert (k.own.vm_map.entries[0].ba.object is not k.vnode.object) is shadowed


def test_an_upgrade_that_loses_the_lock_looks_up_again() -> None:
    k = Vkernel()
    insert(k, 0, 4 * PAGE)

    async def read() -> None:
        found = await vm_map_lookup(k.own.vm_map, PAGE, READ)
        assert isinstance(found, Lookup)
        await vm_map_unlock(k.own.vm_map)

    a = k.spawn("a", read())
    k.until(a, "map.lock")
    b = k.spawn("b", read())
    k.until(b, "map.lock")
    k.run()

    assert len(k.named("object.create")) == 1
    assert k.named("map.lock")[-1] == ("map.lock", "vkernel", False)
