"""Litmus files: the TOML of `vkemu explore` with a [litmus] table.

[litmus]                      name, window, title, policies it makes sense for
[host]                        HostConfig, as in a scenario; [quirks] too
[page.X]                      a named page of the guest's memory image and its first words
[va.a]                        a named address: its page, VPTE bits, is there a host PTE
[[thread]]                    name, kind (user, guest, fault, pageout, host), cpu, run
[[before]]                    statements of a thread that are over when the test begins
[guest]                       in place of pages: a whole vkernel, whose threads make system calls
[outcome]                     forbidden, allowed, required: conditions over the final state
[[variant]]                   the same test with other switches or other threads
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from vkemu.launch import scenario
from vkemu.launch.scenario import QuirkTable, Scenario, read_document
from vkemu.litmus.check import check
from vkemu.litmus.condition import Condition
from vkemu.litmus.document import (
    Conditions,
    File,
    GuestTable,
    Kind,
    LitmusHost,
    ThreadTable,
    Variant,
)
from vkemu.litmus.herd import Outcomes
from vkemu.litmus.statement import Statement, parse
from vkemu.litmus.tables import Tables, tables_for, vpte_bits
from vkemu.mistake import convert
from vkemu.verdict import UsageError, one_of
from vkhost.quirks import Quirks
from vkhost.rmap import tree_of
from vkhost.tree import TREES

WINDOWS = Path(__file__).parent / "windows"
ELSEWHERE = Path(__file__).parent / "elsewhere"
GUEST = Path(__file__).parent / "guest"
X86 = Path(__file__).parent / "x86"
SWITCHES = Path(__file__).parent / "switches"
FIRST_PAGE = 8  # frames below hold the guest's page tables


class Program(msgspec.Struct, frozen=True):
    """A thread's statements, parsed."""

    name: str
    kind: Kind
    cpu: int
    run: tuple[Statement, ...]


class Litmus(msgspec.Struct, frozen=True):
    """A checked litmus test. `frames` gives each named page its pindex in the image."""

    file: File
    where: str
    frames: dict[str, int]
    threads: tuple[Program, ...]
    forbidden: tuple[Condition, ...]
    allowed: tuple[Condition, ...]
    required: tuple[Condition, ...]
    before: tuple[Statement, ...] = ()  # of the program of a [guest]
    prepared: tuple[Program, ...] = ()  # [[before]]
    variant: str = ""
    tree: str = ""  # laid over the test's own host.tree
    whole: bool = False  # its states are of every register, whatever the conditions read

    @property
    def name(self) -> str:
        base = self.file.litmus.name
        return f"{base}+{self.variant}" if self.variant else base

    @property
    def image_pages(self) -> int:
        return max(self.frames.values(), default=FIRST_PAGE) + 1

    @property
    def resident_pages(self) -> int:
        """Frames that are taken at the start."""
        return len(self.tables().words) + sum(p.resident for p in self.file.page.values())

    @property
    def running_cpus(self) -> list[int]:
        """The CPUs that run a thread of the vkernel, or have its TLB entries, at the start."""
        cpus = {t.cpu for t in self.threads if t.kind in ("user", "guest")}
        cpus.update(cpu for a in self.file.va.values() for cpu in a.tlb)
        return sorted(cpus)

    def says(self, verb: str) -> bool:
        """Whether any of its threads does."""
        return any(s.verb == verb for t in (*self.prepared, *self.threads) for s in t.run)

    def written(self, name: str) -> set[str]:
        """The registers that a thread writes, or that are written before it begins."""
        said = (s for t in (*self.prepared, *self.threads) if t.name == name for s in t.run)
        return {s.target for s in said if s.target}

    @property
    def vcpus(self) -> int:
        """Of a [guest]."""
        assert self.file.guest is not None
        first = sum(thread.kind in ("process", "daemon") for thread in self.threads)
        return max(first, self.file.guest.vcpus)

    @property
    def registers(self) -> tuple[str, ...]:
        """Of the programs of a [guest]."""
        said = (*self.before, *(s for thread in self.threads for s in thread.run))
        return tuple(dict.fromkeys(s.target for s in said if s.target))

    def tables(self) -> Tables:
        """The guest's page tables at the start."""
        return tables_for(
            (
                (a.va, self.frames[a.page] << 12 | vpte_bits(a.bits, "") if a.page else 0)
                for a in self.file.va.values()
            ),
            FIRST_PAGE,
        )

    def not_applicable(self, policy: str) -> str:
        """Why the test says nothing about a policy, or nothing."""
        heading = self.file.litmus
        if heading.policies and policy not in heading.policies:
            return heading.reason
        switch = heading.na_where.get(policy)
        if switch is not None and not getattr(self.quirks(policy), switch):
            return ""
        return heading.na.get(policy, "")

    def quirks(self, policy: str) -> Quirks:
        """As the tree has them on which the policy is asked."""
        own = msgspec.convert(msgspec.structs.asdict(self.file.quirks), Quirks)
        return own.on(self.file.host.tree or tree_of(policy))

    def outcomes(self) -> Outcomes:
        return Outcomes(self.forbidden, self.allowed, self.required)

    @property
    def atoms(self) -> tuple[str, ...]:
        """What states are of: what the conditions read; where they read nothing, or it is asked
        for, every register that is written."""
        if self.read and not self.whole:
            return self.read
        left = ("child", "image", "daemon")  # threads whose registers no machine keeps
        threads = (t for t in (*self.prepared, *self.threads) if t.kind not in left)
        written = (f"{t.name}.{s.target}" for t in threads for s in t.run if s.target)
        return tuple(dict.fromkeys((*self.read, *written)))

    @property
    def read(self) -> tuple[str, ...]:
        """What the conditions read."""
        conditions = (*self.forbidden, *self.allowed, *self.required)
        return tuple(dict.fromkeys(atom for c in conditions for atom in c.atoms))

    def writing(self, atom: str) -> list[str]:
        """The statements that say they write the register, of a program or of what came before."""
        name, _, register = atom.partition(".")
        run = [s for thread in self.threads if thread.name == name for s in thread.run]
        return [said.text for said in (*self.before, *run) if said.target == register]

    def variants(self) -> list[Litmus]:
        """This test under each of its [[variant]] tables."""
        return [_variant(self, variant) for variant in self.file.variant]


def load(source: str) -> Scenario | Litmus:
    """Whichever of the two the file is."""
    document, path = scenario.laid_out(source)
    if any(key in document for key in scenario.LITMUS):
        return read(document, path)
    return scenario.read(document, path)


def load_litmus(source: str, variant: str = "", tree: str = "") -> Litmus:
    """The test at a path, or shipped under a name or a window (`W07`); one of its variants; on
    another tree than its own or the policy's."""
    path = find_litmus(source)
    litmus = read(read_document(path), path)
    if tree:
        litmus = _on_tree(litmus, tree)
    if not variant:
        return litmus
    found = {v.variant: v for v in litmus.variants()}
    if variant not in found:
        there = f"one of {', '.join(found)}" if found else "none: the test has no [[variant]]"
        raise UsageError(f"{path}: no variant {variant!r}, expected {there}")
    return found[variant]


def _on_tree(litmus: Litmus, tree: str) -> Litmus:
    if tree not in TREES:
        raise UsageError(f"tree {tree!r}, expected one of {', '.join(TREES)}")
    host = msgspec.structs.replace(litmus.file.host, tree=tree)
    file = msgspec.structs.replace(litmus.file, host=host)
    return msgspec.structs.replace(litmus, file=file, tree=tree)


def find_litmus(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    there = {
        test.stem: test for test in (*shipped(), *elsewhere(), *of_guest(), *of_x86(), *switches())
    }
    named = [stem for stem in there if source and stem.startswith(source)]
    exact = [stem for stem in named if f"{stem}-".startswith(f"{source}-")]
    if len(exact) == 1 or len(named) == 1:
        return there[(exact or named)[0]]
    shown = 12  # names, in a message
    if named:
        raise UsageError(f"{source}: ambiguous, expected one of {', '.join(named[:shown])}")
    windows = [stem.partition("-")[0] for stem in there]
    near = one_of(source, [*scenario.shipped_names(), *there, *windows])
    hint = near.partition("? ")[0] + "? " if "?" in near else ""
    raise UsageError(f"{source}: no such file, {hint}expected a litmus test or a window, e.g. W07")


def shipped() -> list[Path]:
    """The litmus tests of the windows, in the order of the catalogue."""
    return sorted(WINDOWS.glob("W*.toml"))


def elsewhere() -> list[Path]:
    """Races of other kernels, as litmus tests."""
    return sorted(ELSEWHERE.glob("*.toml"))


def of_guest() -> list[Path]:
    """Races within a guest's own kernel."""
    return sorted(GUEST.glob("*.toml"))


def of_x86() -> list[Path]:
    """What machine code sees of edits and reclaims of its text: they need the extra x86."""
    return sorted(X86.glob("*.toml"))


def switches() -> list[Path]:
    """What a program sees of the switches of [quirks] that are no window's."""
    return sorted(SWITCHES.glob("*.toml"))


def read(document: dict[str, Any], path: Path) -> Litmus:
    """Decode and check; UsageError with file:key for the first mistake."""
    if "litmus" not in document:
        raise UsageError(f"{path}:litmus: missing, expected a [litmus] table with a name")
    return build(convert(document, File, str(path)), str(path))


def build(file: File, where: str, variant: str = "") -> Litmus:
    outcome = file.outcome
    before = () if file.guest is None else _statements(file.guest.before, f"{where}:guest.before")
    given = {t.name: {s.target for s in before if s.target} for t in file.thread}
    prepared = _prepared(file, where, given)
    litmus = Litmus(
        file=file,
        where=where,
        frames=_place_pages(file, where),
        threads=tuple(
            Program(
                t.name,
                t.kind,
                _cpu(t, i),
                _statements(t.run, f"{where}:thread[{i}].run", given[t.name]),
            )
            for i, t in enumerate(file.thread)
        ),
        forbidden=_conditions(outcome.forbidden, f"{where}:outcome.forbidden"),
        allowed=_conditions(outcome.allowed, f"{where}:outcome.allowed"),
        required=_conditions(outcome.required, f"{where}:outcome.required"),
        before=before,
        prepared=prepared,
        variant=variant,
    )
    check(litmus)
    return litmus


def _variant(litmus: Litmus, variant: Variant) -> Litmus:
    file = litmus.file
    where = f"{litmus.where}:variant.{variant.name}"
    replaced = {t.name: t for t in variant.thread}
    unknown = replaced.keys() - {t.name for t in file.thread}
    if unknown:
        raise UsageError(
            f"{where}.thread: {min(unknown)!r}, expected one that the test has: "
            f"{', '.join(t.name for t in file.thread)}"
        )
    host = {**msgspec.structs.asdict(file.host), **variant.host}
    quirks = {**msgspec.structs.asdict(file.quirks), **variant.quirks}
    heading = msgspec.structs.replace(
        file.litmus,
        na={**file.litmus.na, **variant.na},
        na_where={**file.litmus.na_where, **variant.na_where},
        tunables={**file.litmus.tunables, **variant.tunables},
    )
    changed = msgspec.structs.replace(
        file,
        litmus=heading,
        outcome=file.outcome if variant.outcome is None else variant.outcome,
        host=convert(host, LitmusHost, f"{where}.host"),
        quirks=convert(quirks, QuirkTable, f"{where}.quirks"),
        guest=_guest(file.guest, variant.guest, where),
        mutants=file.mutants + variant.mutants,
        thread=tuple(replaced.get(t.name, t) for t in file.thread),
        variant=(),
    )
    return msgspec.structs.replace(build(changed, litmus.where, variant.name), tree=litmus.tree)


def _guest(guest: GuestTable | None, changed: dict[str, Any], where: str) -> GuestTable | None:
    if not changed:
        return guest
    if guest is None:
        raise UsageError(f"{where}.guest: the test has none, expected a [guest] table")
    return convert({**msgspec.structs.asdict(guest), **changed}, GuestTable, f"{where}.guest")


def _place_pages(file: File, where: str) -> dict[str, int]:
    frames: dict[str, int] = {}
    following = FIRST_PAGE
    for name, page in file.page.items():
        frame = following if page.frame is None else page.frame
        if frame < FIRST_PAGE or frame in frames.values():
            raise UsageError(
                f"{where}:page.{name}.frame: {frame}, expected one of its own from {FIRST_PAGE} on "
                "(those below hold page tables)"
            )
        frames[name] = frame
        following = max(following, frame + 1)
    return frames


def _prepared(file: File, where: str, given: dict[str, set[str]]) -> tuple[Program, ...]:
    """[[before]]; `given` gets the registers it writes."""
    threads = {t.name: (_cpu(t, i), t.kind) for i, t in enumerate(file.thread)}
    found = []
    for i, table in enumerate(file.before):
        name, here = table.thread, f"{where}:before[{i}]"
        if name not in threads:
            raise UsageError(f"{here}.thread: {name!r}, expected one of {', '.join(threads)}")
        cpu, kind = threads[name]
        lines = _statements(table.run, f"{here}.run", given[name])
        given[name].update(s.target for s in lines if s.target)
        found.append(Program(name, kind, cpu, lines))
    return tuple(found)


def _cpu(table: ThreadTable, index: int) -> int:
    if table.cpu is None and table.kind in ("pageout", "host"):
        return 0  # no thread of a CPU's: where it runs makes no difference
    return index if table.cpu is None else table.cpu


def _statements(
    lines: tuple[str, ...], where: str, given: Iterable[str] = ()
) -> tuple[Statement, ...]:
    """`given`: registers that are written before the first of them."""
    found: list[Statement] = []
    registers = set(given)
    for i, line in enumerate(lines):
        found.append(parse(line, f"{where}[{i}]", registers))
        registers.update(filter(None, (found[-1].target,)))
    return tuple(found)


def _conditions(texts: Conditions, where: str) -> tuple[Condition, ...]:
    return tuple(Condition(t, where) for t in ((texts,) if isinstance(texts, str) else texts))
