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
    """[litmus]"""

    name: Name
    window: Annotated[str, Meta(pattern=r"^(W[0-9][0-9])?$")] = ""
    title: str = ""
    breaks: str = ""
    policies: tuple[str, ...] = ()  # empty: all
    reason: str = ""  # why the other policies are n/a
    na: dict[str, str] = msgspec.field(default_factory=dict)  # policy -> why not on this one
    max_steps: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    spare: Annotated[int, Meta(ge=0)] | None = None  # free frames; None: what host.pages leaves
    checks: tuple[str, ...] = ()  # of the oracle; empty: the default ones
    on_step_bound: Literal["unknown", "fail"] = "unknown"  # fail: not to end is what it breaks
    counter_steps: bool = False  # ++ of a global counter is a load and a store
    tunables: dict[str, int] = msgspec.field(default_factory=dict)  # sysctls of the host


class Page(Table, frozen=True):
    """[page.X]: `frame` is its pindex in the image; chosen in order of appearance if absent."""

    frame: Annotated[int, Meta(ge=0, le=4095)] | None = None
    words: Annotated[tuple[Word, ...], Meta(max_length=VPTE_PAGE_ENTRIES)] = ()
    resident: bool = True
    dirty: bool = False
    dmap: Literal["", "r", "rw"] = ""  # a host PTE of the DMAP exists from the start


class Address(Table, frozen=True):
    """[va.a]: `page` empty for V = 0; `mapped` gives the host PTE there is at the start."""

    va: Annotated[int, Meta(ge=0, lt=1 << 47)]
    page: str = ""
    bits: Bits = "V|RW|U|A|M"
    mapped: Literal["", "r", "rw"] = ""
    tlb: tuple[int, ...] = ()  # CPUs whose TLB holds it from the start
    written: Word | None = None  # what those CPUs have stored there, so that the host PTE has M


class ThreadTable(Table, frozen=True):
    """[[thread]]"""

    name: Ident
    kind: Kind
    run: Annotated[tuple[Line, ...], Meta(max_length=64)]
    cpu: Annotated[int, Meta(ge=0, le=63)] | None = None


class GuestTable(Table, frozen=True):
    """[guest]: a whole vkernel, whose threads make system calls (calls.py)."""

    pages: Annotated[int, Meta(ge=16, le=256)] = 40  # of its memory image
    swap: Annotated[int, Meta(ge=0, le=64)] = 0  # of these
    data: Annotated[int, Meta(ge=0, le=16)] = 2  # of its programs, from 0x410000 on
    vcpus: Annotated[int, Meta(ge=0, le=8)] = 0  # one for each process and daemon thread, or more
    free_target: int | None = None
    before: Annotated[tuple[Line, ...], Meta(max_length=64)] = ()  # done when the threads part
    mutants: tuple[str, ...] = ()


class OutcomeTable(Table, frozen=True):
    """[outcome]"""

    forbidden: Conditions = ()
    allowed: Conditions = ()
    required: Conditions = ()


class Variant(Table, frozen=True):
    """[[variant]]: what it changes; threads are replaced by name."""

    name: Name
    about: str = ""
    host: dict[str, Any] = msgspec.field(default_factory=dict)
    quirks: dict[str, Any] = msgspec.field(default_factory=dict)
    guest: dict[str, Any] = msgspec.field(default_factory=dict)
    mutants: tuple[str, ...] = ()
    tunables: dict[str, int] = msgspec.field(default_factory=dict)
    thread: tuple[ThreadTable, ...] = ()
    outcome: OutcomeTable | None = None
    na: dict[str, str] = msgspec.field(default_factory=dict)


class File(Table, frozen=True):
    """A whole file."""

    litmus: Heading
    thread: Annotated[tuple[ThreadTable, ...], Meta(min_length=1, max_length=8)]
    host: LitmusHost = LitmusHost()
    quirks: QuirkTable = QuirkTable()
    guest: GuestTable | None = None
    mutants: tuple[str, ...] = ()
    page: dict[Ident, Page] = msgspec.field(default_factory=dict)
    va: dict[Ident, Address] = msgspec.field(default_factory=dict)
    outcome: OutcomeTable = OutcomeTable()
    variant: tuple[Variant, ...] = ()
