"""What is stored is looked up as the kernels would find it, also once clean pages have gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vkemu.books.content import Image, _stored
from vkemu.books.guest import GuestBooks
from vkprotocol.effects import CURTHREAD

from tests.books.test_quiet import outcome, wild
from vkguest.kernel import Vkernel
from vkguest.vm.vm_page import VmPage
from vkhost.kernel import Kernel
from vkhost.pc64.pmap_bits import PTE_M
from vkhost.vm.vm_page import VM_PAGE_BITS_ALL


def pages(books: GuestBooks) -> Iterator[VmPage]:
    """Mapped by a program, with something in them."""
    for vm in books.vmspaces:
        for entry in vm.vm_map.entries:
            for m in entry.object.pages.values():
                if m.pv_list and any(books.image.words(m.frame)) and not entry.object.text:
                    yield m


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("a word is another", "would read"),
        ("a page of which only its dirty bit tells is clean", "which counts as clean"),
    ],
)
def test_a_guest_loses_what_a_program_stored(
    mistake: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = wild("pv_entry")
    check = machine.books.check_guest
    done: list[VmPage] = []

    def checked(guest: Vkernel) -> None:
        check(guest)
        before, CURTHREAD[0] = CURTHREAD[0], None
        books = GuestBooks(guest, Image(machine.books.image(guest)))
        books.check()
        for m in () if done else pages(books):
            if mistake.startswith("a word"):
                words = books.image.words(m.frame)
                at = next(i for i, word in enumerate(words) if word)
                words[at] += 1  # type: ignore[index] # the host has it in memory
                done.append(m)
                break
            if m.dirty and m.frame not in books.image.modified and not m.wire_count:
                m.dirty = False
                done.append(m)
                break
        CURTHREAD[0] = before
        check(guest)

    monkeypatch.setattr(machine.books, "check_guest", checked)
    error = outcome(machine).error

    assert done
    assert said in str(error)


def test_the_host_forgets_that_a_page_is_dirty(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = wild("pv_entry")
    check = machine.books.check_host

    def checked() -> None:
        check()
        forget(machine.kernel)
        check()

    def forget(kernel: Kernel) -> None:
        for m in kernel.pages.values():
            if m.object is None or m.valid != VM_PAGE_BITS_ALL or not m.dirty.state:
                continue
            if _stored(m) not in (None, m.frame.words.tobytes()):
                m.dirty.state = 0
                for _, pte in machine.books.mappings(m):
                    pte.state &= ~PTE_M
                return

    monkeypatch.setattr(machine.books, "check_host", checked)

    assert "is not as its backing store has it" in str(outcome(machine).error)
