"""The tables of a litmus file, as TOML gives them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta
from vkprotocol.vpte import VPTE_PAGE_ENTRIES

from vkemu.launch.scenario import Host, Name, QuirkTable, Table

Kind: TypeAlias = Literal[
    "user", "guest", "fault", "pageout", "host", "process", "child", "image", "daemon"
]
Bits: TypeAlias = Annotated[str, Meta(max_length=40)]
Conditions: TypeAlias = str | tuple[str, ...]  # at most CONDITION_CHARS each
Word: TypeAlias = Annotated[int, Meta(ge=0)]
# What a condition can name.
Ident: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=32)]
Line: TypeAlias = Annotated[str, Meta(max_length=200)]


class LitmusHost(Host, frozen=True):
    """[host] of a litmus test: small, and without the threads it does not ask for."""

    pages: int = 48
    pqcolors: int = 16
    pageout: bool = False
    emergency: bool = False
    ipi_threads: bool = False
    fault_workers: bool = False
    free_min: int | None = 2
    free_reserved: int | None = 1
    free_severe: int | None = 1
    free_target: int | None = 4
    pageout_free_min: int | None = 1
    interrupt_free_min: int | None = 0
    cache_min: int | None = 0
    inactive_target: int | None = 0


class Heading(Table, frozen=True):
    """[litmus]: what the test is, and what is judged."""

    name: Name  # of the test; in tokens and reports
    # The window of docs/windows.md that it decides.
    window: Annotated[str, Meta(pattern=r"^(W[0-9][0-9])?$")] = ""
    title: str = ""  # one line about it
    breaks: str = ""  # which invariant, in words
    policies: tuple[str, ...] = ()  # empty: all
    reason: str = ""  # why the other policies are n/a
    na: dict[str, str] = msgspec.field(default_factory=dict)  # policy -> why not on this one
    # Policy -> the switch of [quirks] that makes it so: in a tree without, it is asked.
    na_where: dict[str, str] = msgspec.field(default_factory=dict)
    # An execution that is longer is cut.
    max_steps: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    # Free frames; if it is not said, what host.pages leaves. With 0 nobody gets a frame but that of
    # a page that was cached or freed since: `reuse` takes that of X, once X is reclaimed.
    spare: Annotated[int, Meta(ge=0)] | None = None
    # Of the oracle (see Checks); empty: the default ones, so that "none" is said by naming one that
    # is about something else. The first violation ends an execution: harm that comes later is seen
    # only without the check that comes first.
    checks: tuple[str, ...] = ()
    on_step_bound: Literal["unknown", "fail"] = "unknown"  # fail: not to end is what it breaks
    counter_steps: bool = False  # ++ of a global counter is a load and a store
    tunables: dict[str, int] = msgspec.field(default_factory=dict)  # sysctls of the host


class Page(Table, frozen=True):
    """[page.X]: a page of the memory image that a condition and a statement can name."""

    # Which page of the memory image it is; in order of appearance, if it is not said.
    frame: Annotated[int, Meta(ge=0, le=4095)] | None = None
    # Its first words; the others are 0.
    words: Annotated[tuple[Word, ...], Meta(max_length=VPTE_PAGE_ENTRIES)] = ()
    resident: bool = True  # in memory; else it is in the file alone
    dirty: bool = False  # changed since it was last written out; so is what is mapped "rw"
    dmap: Literal["", "r", "rw"] = ""  # a host PTE of the DMAP exists from the start


class Address(Table, frozen=True):
    """[va.a]: an address of the guest process, with tables that lead to its VPTE."""

    va: Annotated[int, Meta(ge=0, lt=1 << 47)]  # a multiple of 4096
    page: str = ""  # what its VPTE names; none: V is clear
    bits: Bits = "V|RW|U|A|M"  # of its VPTE
    # The host PTE that is there from the start. It is faulted in, by a read or a write: the page is
    # PG_REFERENCED then, so that the scan that meets it first makes it active, and after "rw" it is
    # dirty. After "r" it is clean, but the PTE has RW if the VPTE has RW and M: a store takes no
    # fault. Without M in `bits` the PTE is read-only.
    mapped: Literal["", "r", "rw"] = ""
    tlb: tuple[int, ...] = ()  # CPUs whose TLB holds it from the start
    written: Word | None = None  # what those CPUs have stored there, so that the host PTE has M


class ThreadTable(Table, frozen=True):
    """[[thread]]: one of two to eight, which take their steps in any order."""

    name: Ident  # what conditions call it
    kind: Kind  # which thread of the machine it is (see Threads)
    # Its statements, one after the other.
    run: Annotated[tuple[Line, ...], Meta(max_length=64)]
    # The CPU that it has for itself; if it is not said, its place among all threads of the file,
    # those of host and pageout counted, which have none: the third is on CPU 2. host.cpus is 2.
    cpu: Annotated[int, Meta(ge=0, le=63)] | None = None


class BeforeTable(Table, frozen=True):
    """[[before]]: what a thread of the test has done when it begins, one such table after the
    other, with nobody beside it."""

    thread: Ident  # whose statements they are
    run: Annotated[tuple[Line, ...], Meta(max_length=64)]  # one after the other


class GuestTable(Table, frozen=True):
    """[guest]: a whole vkernel, whose threads make system calls (calls.py)."""

    pages: Annotated[int, Meta(ge=16, le=256)] = 40  # of its memory image
    swap: Annotated[int, Meta(ge=0, le=64)] = 0  # of these
    data: Annotated[int, Meta(ge=0, le=16)] = 2  # of its programs, from 0x410000 on
    vcpus: Annotated[int, Meta(ge=0, le=8)] = 0  # one for each process and daemon thread, or more
    free_target: int | None = None  # of its page daemon, in pages
    before: Annotated[tuple[Line, ...], Meta(max_length=64)] = ()  # done when the threads part
    mutants: tuple[str, ...] = ()  # defects of the guest's kernel


class OutcomeTable(Table, frozen=True):
    """[outcome]: conditions on registers and words at the end, one or a list of them."""

    forbidden: Conditions = ()  # no execution ends so
    # Every execution ends so, or as `required` says. Without it any end is allowed that is not
    # forbidden, whatever is required.
    allowed: Conditions = ()
    # For each of them some execution ends so, or an exhausted search fails: that what the test is
    # about happens at all.
    required: Conditions = ()


class Variant(Table, frozen=True):
    """[[variant]]: what it changes; threads are replaced by name."""

    name: Name  # --variant NAME
    about: str = ""  # one line about it
    # Keys of [host] that are other.
    host: dict[str, Any] = msgspec.field(default_factory=dict)
    # Keys of [quirks] that are other.
    quirks: dict[str, Any] = msgspec.field(default_factory=dict)
    # Keys of [guest] that are other.
    guest: dict[str, Any] = msgspec.field(default_factory=dict)
    mutants: tuple[str, ...] = ()  # deliberate defects, in place of the file's
    # Sysctls that are other.
    tunables: dict[str, int] = msgspec.field(default_factory=dict)
    # Threads, in place of those of the same name.
    thread: tuple[ThreadTable, ...] = ()
    outcome: OutcomeTable | None = None  # in place of the file's
    # Policy -> why there is no question on it.
    na: dict[str, str] = msgspec.field(default_factory=dict)
    # Policy -> the switch that makes it so.
    na_where: dict[str, str] = msgspec.field(default_factory=dict)


class File(Table, frozen=True):
    """A whole file."""

    litmus: Heading  # a table of its own, below
    # Tables of their own, below; up to eight.
    thread: Annotated[tuple[ThreadTable, ...], Meta(min_length=1, max_length=8)]
    host: LitmusHost = LitmusHost()  # a table of its own, below
    quirks: QuirkTable = QuirkTable()  # a table of its own, below
    guest: GuestTable | None = None  # a table of its own, below
    mutants: tuple[str, ...] = ()  # deliberate defects of the host's kernel
    page: dict[Ident, Page] = msgspec.field(default_factory=dict)  # [page.NAME], below
    va: dict[Ident, Address] = msgspec.field(default_factory=dict)  # [va.NAME], below
    before: tuple[BeforeTable, ...] = ()  # tables of their own, below
    outcome: OutcomeTable = OutcomeTable()  # a table of its own, below
    variant: tuple[Variant, ...] = ()  # [[variant]], below
