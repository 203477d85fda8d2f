"""Scenario files: TOML, decoded into frozen Structs; every mistake is one line with its place.

One format serves `run` and `explore`. A file with a table of LITMUS is a litmus test, which
`vkemu.litmus.file` reads; anything else is a scenario of whole guests.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct
from vkprotocol import limits
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS

from vkemu.launch import elf, faults, names
from vkemu.launch.setting import lay_over, read_setting
from vkemu.mistake import convert
from vkemu.verdict import UsageError, all_known, known, once, one_of
from vkguest.quirks import Quirks as GuestQuirks
from vkguest.quirks import Tree as GuestTree
from vkhost.config import MAXCPU, HostConfig
from vkhost.fault_injection import InjectedFault
from vkhost.quirks import Quirks
from vkhost.vm.vm_meter import Thresholds

SHIPPED = Path(__file__).parents[1] / "scenarios"
STEPS = 50_000_000

LITMUS = ("litmus", "thread")  # top-level tables that only a litmus test has

Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=64)]
Size: TypeAlias = int | str  # bytes; "64M", "512K", "1G", or "100p" for pages
Expect: TypeAlias = Literal["pass", "fail", "unknown"]


class Table(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A TOML table: a key it does not know is a mistake."""


class Host(HostConfig, frozen=True, forbid_unknown_fields=True):
    """[host]: what vkhost.config.HostConfig has."""


class QuirkTable(Quirks, frozen=True, forbid_unknown_fields=True):
    """[quirks]: what vkhost.quirks.Quirks has."""


class Region(Table, frozen=True):
    """[[guest.process.region]]: memory its program finds mapped when it starts."""

    start: Annotated[int, Meta(ge=0)]  # a multiple of 4096
    size: Size  # bytes, or as "512K", "4M", "100p"
    prot: Literal["r", "rw"] = "rw"  # what its program may do there


class Process(Table, frozen=True):
    """[[guest.process]]: a user program of a guest: one instruction a line (asm.py), or the path of
    an .elf, from the scenario's folder on, with its arguments."""

    program: str  # its text, or the path of an .elf
    args: tuple[str, ...] = ()  # of an .elf
    name: Name = "program"  # in the log
    data: Size = "1p"  # from DATA_ADDRESS on, zeroed
    region: tuple[Region, ...] = ()  # tables of their own, below


class DataFile(Table, frozen=True):
    """[[guest.file]]: what programs in machine code can open: a file, or random words."""

    name: Name  # in the log and in reports
    path: str = ""  # of a file, from the scenario's folder on
    words: Annotated[int, Meta(ge=0, le=1 << 21)] = 0  # or so many random ones
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 1  # of the schedule, without --seed


class Guest(Table, frozen=True):
    """[[guest]]: one vkernel and its first processes: workloads by name, programs by text."""

    name: Name  # in the log and in reports
    memory: Size  # bytes, or as "512K", "4M", "100p"
    vcpus: Annotated[int, Meta(ge=1, le=limits.VCPUS)] = 2  # virtual CPUs
    workloads: tuple[str, ...] = ()  # "forkcow", "touch:pages=4,rounds=2"
    process: tuple[Process, ...] = ()  # tables of their own, below
    programs: tuple[str, ...] = ()  # paths of .elf that programs in machine code can exec
    file: tuple[DataFile, ...] = ()  # tables of their own, below
    swap: Size = 0  # the end of its memory is its swap
    quantum: Annotated[int, Meta(ge=1, le=limits.RUN_BUDGET)] = 200  # instructions of a turn
    prezero: bool = False  # zero all memory before the kernel starts
    kernel_map: bool = False  # trap frames and buffers of its own that it may fault on
    mutants: tuple[str, ...] = ()  # deliberate defects of the host's kernel
    tree: GuestTree = "patch"  # of the vkernel, which may be older than its host
    quirks: GuestQuirks = GuestQuirks()  # a table of its own, below

    @property
    def memory_pages(self) -> int:
        return size_bytes(self.memory) // PAGE_SIZE

    @property
    def swap_pages(self) -> int:
        return size_bytes(self.swap) // PAGE_SIZE


class NativeTable(Table, frozen=True):
    """[[native]]: a host process that is no vkernel, and writes and checks memory (native.py)."""

    name: Name  # in the log and in reports
    memory: Size  # bytes, or as "512K", "4M", "100p"
    rounds: Annotated[int, Meta(ge=1, le=1000)] = 2  # of writing and checking
    pause_ms: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # between rounds, in virtual time
    innocent: bool = False  # to kill it is a failure
    ops: Annotated[int, Meta(ge=0, le=10_000)] = 0  # drawn ones, instead of the rounds
    every: bool = False  # of every kind: mprotect, msync, mlock, a file's pages, forks
    corners: bool = False  # before these, each call with its answer, and all that a kernel refuses
    seed: Annotated[int, Meta(ge=0)] | None = None  # of these; drawn from the run's

    @property
    def memory_pages(self) -> int:
        return size_bytes(self.memory) // PAGE_SIZE


class Scenario(Table, frozen=True):
    """A whole file."""

    guest: tuple[Guest, ...]  # tables of their own, below
    name: Name = ""  # of its run folders; the file's, if it is not said
    about: str = ""  # one line that a run begins with
    policy: str = "pv_entry"  # the reverse map of the host
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 1  # of the schedule, without --seed
    max_steps: Annotated[int, Meta(ge=1, le=STEPS)] = 5_000_000  # then the verdict is unknown
    timers: Literal["last", "any"] = "last"  # fire once nobody can run, or at any time
    expect: Expect = "pass"  # the verdict that a test of the file asks for
    host: Host = Host()  # a table of its own, below
    quirks: QuirkTable = QuirkTable()  # a table of its own, below
    mutants: tuple[str, ...] = ()  # deliberate defects of the host's kernel
    checks: tuple[str, ...] = ()  # of the oracle (see Checks); empty: the default ones
    native: tuple[NativeTable, ...] = ()  # tables of their own, below
    fault: tuple[InjectedFault, ...] = ()  # tables of their own, below
    blobs: dict[str, bytes] = {}  # no key of a file: what the files it names hold

    @property
    def lwps(self) -> int:
        """How many real CPUs: for each virtual one, each thread of a native, and a child of it."""
        return sum(g.vcpus for g in self.guest) + sum(1 + 2 * n.every for n in self.native)

    @property
    def identity(self) -> bytes:
        """What a schedule of this scenario depends on, besides the code: 32 bytes.

        Not comments and layout, nor what is said about the scenario instead of in it.
        """
        meaning = msgspec.structs.replace(self, name="-", about="", seed=0, expect="pass")
        return hashlib.sha256(msgspec.json.encode(meaning)).digest()


def size_bytes(size: Size) -> int:
    """Bytes of `size`; ValueError when it is none."""
    if isinstance(size, int):
        return size
    if size.isascii() and size.isdigit():
        return int(size)
    units = {"p": PAGE_SIZE, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    unit = units.get(size[-1:].lower())
    if unit is None or not size[:-1].isascii() or not size[:-1].isdigit():
        raise ValueError(f"{size!r} is no size, expected bytes or a number with p, K, M or G")
    return int(size[:-1]) * unit


def find(path_or_name: str) -> Path:
    """A path as it is, or the shipped scenario of that name."""
    path = Path(path_or_name)
    shipped = SHIPPED / f"{path_or_name}.toml"
    if exists(path_or_name):
        if not path.is_file():
            raise UsageError(f"{path}: not a regular file, expected a scenario in TOML")
        return path
    if path.name == path_or_name and shipped.is_file():
        return shipped
    near = one_of(path_or_name, shipped_names()).replace("expected one", "expected a path or one")
    raise UsageError(f"{path}: no such file, {near}")


def exists(path: str) -> bool:
    """Is anything there? UsageError when it cannot be a path."""
    shown_chars = 80  # characters of a path that cannot be one
    try:
        return Path(path).exists()
    except OSError as error:
        shown = path if len(path) <= shown_chars else path[:shown_chars] + "..."
        raise UsageError(f"{shown}: {error.strerror}, expected a path or a name") from None


def shipped_names() -> list[str]:
    return sorted(file.stem for file in SHIPPED.glob("*.toml"))


def read_document(path: Path) -> dict[str, Any]:
    """The file as TOML tables."""
    file_bytes = 1 << 20
    try:
        with path.open("rb") as file:
            raw = file.read(file_bytes + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}, expected a readable file") from None
    if len(raw) > file_bytes:
        raise UsageError(f"{path}: more than {file_bytes} bytes, expected a scenario in TOML")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8 text, expected a scenario in TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}:{_toml_place(str(error), raw)}") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply, expected a scenario in TOML") from None
    except ValueError:  # more digits than int() takes
        raise UsageError(f"{path}: a number too long, expected numbers of 64 bits") from None


def _toml_place(message: str, raw: bytes) -> str:
    """`Invalid value (at line 3, column 5)` as `3: Invalid value, expected TOML`."""
    what, _, place = message.rpartition(" (at ")
    line = place.removeprefix("line ").partition(",")[0]
    if not line.isdigit():
        line = str(raw.count(b"\n") + 1)
    return f"{line}: {what or message}, expected TOML"


def load(path_or_name: str, settings: Sequence[str] = ()) -> Scenario:
    """The scenario at this path or name, with `settings` laid over it."""
    document, path = laid_out(path_or_name, settings)
    if any(key in document for key in LITMUS):
        found = "a litmus test, expected a scenario (see `vkemu explore`)"
        raise UsageError(f"{path_or_name}: {found}")
    return read(document, path)


def laid_out(path_or_name: str, settings: Sequence[str] = ()) -> tuple[dict[str, Any], Path]:
    """The TOML at this path or name, with `settings` - `host.interlock = false` - laid over it."""
    path = find(path_or_name)
    document = read_document(path)
    for setting in settings:
        lay_over(document, read_setting(setting, Scenario))
    return document, path


def read(document: dict[str, Any], path: Path, *, served: bool = False) -> Scenario:
    """`served`: its guests come later, under whatever names."""
    if "blobs" in document:
        raise UsageError(f"{path}:blobs: unknown key, expected none")
    scenario = convert(document, Scenario, str(path))
    scenario = msgspec.structs.replace(scenario, blobs=elf.blobs_of(scenario, path))
    scenario = msgspec.structs.replace(scenario, name=scenario.name or _stem(path))
    cpus = scenario.lwps
    if cpus and "cpus" not in document.get("host", {}):
        # A real CPU for each virtual one.
        if cpus > MAXCPU:
            raise UsageError(f"{path}:guest: {cpus} vCPUs, expected at most {MAXCPU}")
        host = msgspec.structs.replace(scenario.host, cpus=cpus)
        scenario = msgspec.structs.replace(scenario, host=host)
    check(scenario, str(path), served=served)
    return scenario


def _stem(path: Path) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in path.stem)


def check(scenario: Scenario, where: str, *, served: bool = False) -> None:
    """What types cannot say: names that exist, sizes that are possible, ranges that do not meet."""
    known(f"{where}:policy", scenario.policy, names.policies())
    all_known(f"{where}:mutants", scenario.mutants, names.mutants())
    all_known(f"{where}:checks", scenario.checks, names.checks())
    if not scenario.guest:
        raise UsageError(f"{where}:guest: none, expected at least one [[guest]]")
    _check_host(scenario.host, f"{where}:host")
    elf.check_elf(scenario, where)
    if scenario.host.cpus < scenario.lwps:
        raise UsageError(
            f"{where}:host.cpus: {scenario.host.cpus}, expected {scenario.lwps}: one for each vCPU"
        )
    seen: set[str] = set()
    for i, guest in enumerate(scenario.guest):
        if guest.name in seen:
            raise UsageError(f"{where}:guest[{i}].name: {guest.name!r} again, expected another")
        seen.add(guest.name)
        _check_guest(guest, f"{where}:guest[{i}]")
    for i, native in enumerate(scenario.native):
        if native.name in seen:
            raise UsageError(f"{where}:native[{i}].name: {native.name!r} again, expected another")
        seen.add(native.name)
        _size(native.memory, f"{where}:native[{i}].memory", limits.RAM_BYTES)
        if not native.ops and (native.corners or native.seed is not None):
            key = "corners" if native.corners else "seed"
            raise UsageError(f"{where}:native[{i}].{key}: expected with ops, which are drawn")
    for i, fault in enumerate(scenario.fault):
        there = [fault.guest if served else guest.name for guest in scenario.guest]
        natives = [n.name for n in scenario.native]
        faults.check_fault(fault, there, natives, scenario.host, f"{where}:fault[{i}]")
    _check_memory(scenario, where)


def _check_memory(scenario: Scenario, where: str) -> None:
    """All of it is simulated, page by page, in one process."""
    takers = [(f"host.pages: {scenario.host.pages}", scenario.host.pages)]
    for i, guest in enumerate(scenario.guest):
        takers.append((f"guest[{i}].memory: {guest.memory}", guest.memory_pages))
    for i, native in enumerate(scenario.native):
        takers.append((f"native[{i}].memory: {native.memory}", native.memory_pages))
    total = 0
    pages_max = 1 << 17  # of the host and all that runs on it: a page takes about 5 KB here
    for what, pages in takers:
        total += pages
        if total > pages_max:
            most = _size_text(pages_max * PAGE_SIZE)
            raise UsageError(f"{where}:{what}, expected at most {most} for all memory together")


def _check_host(host: Host, where: str) -> None:
    host_pages_min = 16  # less does not hold the tables of one guest process
    if host.pages < host_pages_min:
        raise UsageError(f"{where}.pages: {host.pages}, expected {host_pages_min} or more")
    check_thresholds(host, where)


def check_thresholds(host: HostConfig, where: str) -> None:
    for mark in Thresholds.__struct_fields__:
        value = getattr(host, mark, None)
        if value is not None and not 0 <= value <= host.pages:
            raise UsageError(f"{where}.{mark}: {value}, expected 0 to {host.pages} (host.pages)")


def _check_guest(guest: Guest, where: str) -> None:
    _size(guest.memory, f"{where}.memory", limits.RAM_BYTES)
    if guest.swap != 0:
        _size(guest.swap, f"{where}.swap", size_bytes(guest.memory))
    if not guest.workloads and not guest.process:
        raise UsageError(f"{where}: nothing to run, expected workloads or [[guest.process]]")
    for i, workload in enumerate(guest.workloads):
        _valid(f"{where}.workloads[{i}]", names.check_workload, workload)
    all_known(f"{where}.mutants", guest.mutants, names.guest_mutants())
    once(f"{where}.programs", guest.programs)
    for i, process in enumerate(guest.process):
        here = f"{where}.process[{i}]"
        data = _size(process.data, f"{here}.data", names.DATA_BYTES_MAX)
        _check_regions(process.region, here, data)
        if elf.is_elf(process.program):
            continue
        _valid(f"{here}.program", names.check_program, process.program)


def _check_regions(regions: tuple[Region, ...], where: str, data: int) -> None:
    taken = [(start, end, what) for start, end, what in names.fixed_ranges(data)]
    for i, region in enumerate(regions):
        here = f"{where}.region[{i}]"
        size = _size(region.size, f"{here}.size", limits.RAM_BYTES)
        end = region.start + size
        if region.start % PAGE_SIZE or end > VM_MAX_USER_ADDRESS:
            raise UsageError(
                f"{here}.start: {region.start:#x}, expected a multiple of 4096 in user space"
            )
        for start, stop, what in taken:
            if region.start < stop and start < end:
                raise UsageError(
                    f"{here}.start: {region.start:#x}-{end:#x} overlaps {what} "
                    f"{start:#x}-{stop:#x}, expected ranges apart"
                )
        taken.append((region.start, end, f"region[{i}]"))


def _valid(where: str, check: Callable[[str], object], text: str) -> None:
    try:
        check(text)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _size(size: Size, where: str, most: int) -> int:
    try:
        value = size_bytes(size)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    if value <= 0 or value % PAGE_SIZE or value > most:
        right = f"a positive multiple of 4096 bytes up to {_size_text(most)}"
        raise UsageError(f"{where}: {size}, expected {right}")
    return value


def _size_text(size: int) -> str:
    """In the largest unit that says it exactly."""
    for shift, unit in (30, "G"), (20, "M"), (10, "K"):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)
