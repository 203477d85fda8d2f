"""Windows of hand-written runs, and of random ones whose windows are known by how they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.inspect.reader import Log
from vkemu.inspect.window_report import Report, Tally
from vkemu.inspect.windows import Window, wants_inval, windows

from tests.inspect.streams import PTE_RW, Event, Stream, fleet, write

VA = 0x5000


class Story:
    """A log written line by line."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.events: list[Event] = []

    def __call__(self, actor: str, name: str, **fields: Any) -> None:
        self.events.append(self.stream(actor, name, **fields))

    def fault(self, actor: str = "fault/0", va: int = VA, pfn: int = 12, idx: int = 5) -> None:
        self(actor, "fault.begin", map=1, va=va, type="write")
        self(actor, "vpte.read", pfn=40, idx=1, value=0x29003, vshift=9)
        self(actor, "vpte.read", pfn=41, idx=idx, value=pfn << 12 | 3, vshift=0)
        self(actor, "vpte.am", pfn=41, idx=idx, old=pfn << 12 | 3, new=pfn << 12 | 0x63)
        self(actor, "pte.write", pmap=1, va=va, old=0, new=pfn << 12 | PTE_RW, why="enter")
        self(actor, "fault.end", map=1, va=va, result="KERN_SUCCESS")

    def edit(self, value: int, idx: int = 5, pfn: int = 41) -> None:
        self("vcpu0", "mem.store", cpu=0, pmap=9, va=0, pfn=pfn, idx=idx, value=value)

    def inval(self, start: int = VA, end: int = VA + 4096) -> None:
        self("vcpu0", "inval.begin", pmap=1, start=start, end=end)
        self("vcpu0", "pte.write", pmap=1, va=VA, old=12 << 12 | PTE_RW, new=0, why="inval")
        self("vcpu0", "tlb.flush", cpu=0, va=VA)
        self("vcpu0", "ilock.exit", map=1, start=start, end=end)
        self("vcpu0", "inval.end", pmap=1, start=start, end=end)

    def windows(self, tmp_path: Path, kind: str) -> list[Window]:
        path = write(tmp_path / "x.ndjson", self.events)
        return [window for window in windows(Log(path)) if window.kind == kind]


def test_edit_to_inval(tmp_path: Path) -> None:
    story = Story()
    story.fault()
    story.edit(0)
    story("other", "page.flags", pfn=1, set=1, clear=0)
    story.inval()

    (window,) = story.windows(tmp_path, "edit-to-inval")
    assert (window.opened, window.closed, window.steps) == (6, 8, 2)
    assert window.what == "0x5000@1"
    assert window.ns == 500


def test_an_edit_nobody_invalidates_stays_open(tmp_path: Path) -> None:
    story = Story()
    story.fault()
    story.edit(0)
    story.inval(start=0x9000, end=0xA000)
    story.events[-4]["va"] = 0x9000  # that INVAL removes another PTE

    (window,) = story.windows(tmp_path, "edit-to-inval")
    assert window.closed_by is None


def test_an_edit_of_a_directory_is_the_edit_of_all_below(tmp_path: Path) -> None:
    story = Story()
    story.fault()
    story.fault(va=VA + 4096, pfn=13, idx=6)
    story.edit(0, idx=1, pfn=40)
    story.inval()
    story.inval(start=VA + 4096, end=VA + 8192)

    (window,) = story.windows(tmp_path, "edit-to-inval")
    assert "and 1 more" in window.what
    assert window.closed == story.events[-5]["seq"]  # only the second INVAL ends it


@pytest.mark.parametrize(
    ("old", "new", "wants"),
    [
        (0, 0x5003, False), (0x5003, 0x5023, False), (0x5003, 0x5063, False), (0x5063, 0, True),
        (0x5063, 0x5061, True), (0x5063, 0x5023, True), (0x5063, 0x6063, True),
        (0x5021, 0x5023, True),
    ],
)  # fmt: skip
def test_which_edits_want_an_inval(old: int, new: int, wants: bool) -> None:
    assert wants_inval(old, new) is wants


def test_a_store_to_ordinary_memory_opens_nothing(tmp_path: Path) -> None:
    story = Story()
    story.fault()
    story.edit(0, idx=77)

    assert story.windows(tmp_path, "edit-to-inval") == []


def test_inval_to_flush(tmp_path: Path) -> None:
    story = Story()
    story.inval()

    (window,) = story.windows(tmp_path, "inval-to-flush")
    assert (window.opened, window.closed, window.closed_by) == (0, 2, "vcpu0")


def test_walk_to_enter_and_not_of_a_walk_that_failed(tmp_path: Path) -> None:
    story = Story()
    story("fault/1", "fault.begin", map=1, va=0x7000, type="read")
    story("fault/1", "vpte.read", pfn=41, idx=7, value=0, vshift=0)
    story("fault/1", "fault.end", map=1, va=0x7000, result="KERN_FAILURE")
    story.fault()

    (window,) = story.windows(tmp_path, "walk-to-enter")
    assert (window.opened, window.closed) == (5, 7)


def test_unmap_to_free_and_free_to_unmap(tmp_path: Path) -> None:
    story = Story()
    story.fault()
    story("pageout", "page.free", pfn=12, gen=1)
    story("q", "page.alloc", pfn=12, gen=2, object="o", pindex=0)
    story.inval()
    story("pageout", "page.free", pfn=12, gen=2)

    (bad,) = story.windows(tmp_path, "free-to-unmap")
    assert (bad.opened, bad.closed) == (6, 9)
    assert "at 0x5000@1" in bad.what
    assert story.windows(tmp_path, "unmap-to-free") == []


def test_the_width_counts_steps_where_the_log_has_them(tmp_path: Path) -> None:
    story = Story()
    story.inval()
    for event, step in zip(story.events, [10, 10, 13, 13, 14], strict=True):
        event["step"] = step

    (window,) = story.windows(tmp_path, "inval-to-flush")
    assert window.steps == 3


def test_a_long_run(tmp_path: Path) -> None:
    """In a lawful stream every INVAL flushes and every walk enters; the report says so."""
    path = write(tmp_path / "x.ndjson", fleet(5000))
    found = windows(Log(path))
    kinds = {window.kind for window in found}

    assert {"edit-to-inval", "inval-to-flush", "walk-to-enter"} <= kinds
    assert all(w.closed_by for w in found if w.kind in {"inval-to-flush", "walk-to-enter"})
    assert all(w.steps == 3 for w in found if w.kind == "walk-to-enter")
    report = Report(worst=2)
    for window in found:
        report.add(window)
    text = str(report)
    assert "walk-to-enter, width in steps:" in text
    assert all(len(line) <= 120 for line in text.splitlines())


@given(st.lists(st.integers(0, 40), min_size=1), st.integers(0, 4))
def test_a_tally_keeps_what_the_whole_list_would_say(steps: list[int], worst: int) -> None:
    tally = Tally(worst)
    made = [
        Window("walk-to-enter", "w", "a", seq, 0, "a", seq + n, 7 * n, n)
        for seq, n in enumerate(steps)
    ]
    for window in made:
        tally.add(window)

    widths = sorted(steps)
    assert tally.widest == sorted(made, key=lambda w: (-w.steps, w.opened))[:worst]
    for percent in (0, 50, 99):
        assert tally.quantile(percent) == widths[len(widths) * percent // 100]
    assert tally.max_ns == 7 * widths[-1]
