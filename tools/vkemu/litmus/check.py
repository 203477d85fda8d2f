"""What the tables of a litmus file cannot say by their types: that it fits the machine it names.

Whatever a file gets wrong is found here, before anything runs: an execution of a test may only go
wrong by what the kernels do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.limits import U64
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS
from vkprotocol.vpte import VPTE_PAGE_ENTRIES, VPTE_RW, VPTE_V

from vkemu.launch import names
from vkemu.launch.scenario import check_thresholds
from vkemu.litmus.statement import Statement
from vkemu.litmus.tables import vpte_bits
from vkemu.verdict import UsageError, all_known, known, once
from vkhost.quirks import AS_IN
from vkhost.vm.vm_meter import TUNABLES

if TYPE_CHECKING:
    from vkemu.litmus.document import Address, GuestTable, Heading
    from vkemu.litmus.file import Litmus, Program

PROGRAMS: Final = ("process", "child", "image", "daemon")  # of a [guest]


def check(litmus: Litmus) -> None:
    """UsageError with file:key for the first mistake."""
    where, file = litmus.where, litmus.file
    _heading(file.litmus, f"{where}:litmus")
    all_known(f"{where}:mutants", file.mutants, names.mutants())
    once(f"{where}:variant", [variant.name for variant in file.variant])
    for form in ("forbidden", "allowed", "required"):
        once(f"{where}:outcome.{form}", [c.text for c in getattr(litmus, form)])
    _kinds(litmus)
    if file.guest is not None:
        _guest(litmus, file.guest)
        return
    for name, page in file.page.items():
        if page.dirty and not page.resident:
            raise UsageError(f"{where}:page.{name}.dirty: expected of a page that is resident")
        for i, word in enumerate(page.words):
            _word(word, f"{where}:page.{name}.words[{i}]")
    taken: dict[int, str] = {}
    for name, address in file.va.items():
        here = f"{where}:va.{name}"
        _address(litmus, address, here)
        if address.va in taken:
            raise UsageError(
                f"{here}.va: {address.va:#x} is va.{taken[address.va]}, expected one of its own"
            )
        taken[address.va] = name
    _tables(litmus)
    _host(litmus)
    _threads(litmus)
    _atoms(litmus)


def _kinds(litmus: Litmus) -> None:
    """With a [guest] its programs and daemons, without one anything else."""
    whole = litmus.file.guest is not None
    for i, thread in enumerate(litmus.threads):
        if (thread.kind in PROGRAMS) is not whole:
            expected = ", ".join(PROGRAMS) if whole else "another, or a [guest] table"
            raise UsageError(
                f"{litmus.where}:thread[{i}].kind: {thread.kind!r}, expected {expected}"
            )


def _guest(litmus: Litmus, guest: GuestTable) -> None:
    where, file = litmus.where, litmus.file
    all_known(f"{where}:guest.mutants", guest.mutants, names.guest_mutants())
    least = 12 + 4 * litmus.vcpus + guest.swap  # a vkernel with one process
    if guest.pages < least:
        raise UsageError(f"{where}:guest.pages: {guest.pages}, expected {least} or more")
    if not guest.pages <= file.host.pages <= 4096:
        raise UsageError(f"{where}:host.pages: {file.host.pages}, expected {guest.pages} to 4096")
    for name in file.page:
        raise UsageError(f"{where}:page.{name}: expected none beside a [guest]")
    if file.before:
        raise UsageError(f"{where}:before[0]: expected guest.before beside a [guest]")
    for name, address in file.va.items():
        if address.va % PAGE_SIZE or address.page or address.mapped or address.tlb:
            raise UsageError(
                f"{where}:va.{name}: expected a `va`, a multiple of 4096, and nothing more beside "
                "a [guest]"
            )
    _threads(litmus)
    for statement in (s for t in litmus.threads if t.kind != "daemon" for s in t.run):
        if statement.when is not None:
            raise UsageError(f"{statement.where}: `if`, expected none: a program has no branches")
    most = 8  # of those that calls leave alone
    if len(litmus.registers) > most:
        raise UsageError(
            f"{where}:thread: {len(litmus.registers)} registers, expected at most {most}"
        )
    _atoms(litmus)


def _heading(heading: Heading, where: str) -> None:
    all_known(f"{where}.policies", heading.policies, names.policies())
    for policy in heading.na:
        known(f"{where}.na", policy, names.policies())
    for policy, switch in heading.na_where.items():
        known(f"{where}.na_where", policy, names.policies())
        known(f"{where}.na_where.{policy}", switch, sorted(AS_IN))
    all_known(f"{where}.checks", heading.checks, names.checks())
    tunable_max = (1 << 31) - 1
    for name, value in heading.tunables.items():
        known(f"{where}.tunables", name, sorted(TUNABLES))
        if not 0 <= value <= tunable_max:
            raise UsageError(f"{where}.tunables.{name}: {value}, expected 0 to {tunable_max}")
    if heading.policies and not heading.reason:
        raise UsageError(f"{where}.reason: missing, expected why only those policies")
    if heading.reason and not heading.policies:
        raise UsageError(f"{where}.reason: {heading.reason!r}, expected with litmus.policies")


def _host(litmus: Litmus) -> None:
    where, file = litmus.where, litmus.file
    host = file.host
    cpus_max = 64
    if host.cpus > cpus_max:
        raise UsageError(f"{where}:host.cpus: {host.cpus}, expected at most {cpus_max}")
    resident = litmus.resident_pages
    pages_max = 4096  # of the host of a test, and of its image
    if host.pages > pages_max or host.pages < resident:
        raise UsageError(
            f"{where}:host.pages: {host.pages}, expected {resident} (what is resident) to "
            f"{pages_max}"
        )
    spare = file.litmus.spare
    if spare is not None and spare > pages_max - resident:
        raise UsageError(
            f"{where}:litmus.spare: {spare}, expected at most {pages_max - resident} beside "
            f"{resident} pages that are resident"
        )
    if spare is None:
        check_thresholds(host, f"{where}:host")


def _address(litmus: Litmus, address: Address, where: str) -> None:
    file = litmus.file
    if address.va % PAGE_SIZE or address.va >= VM_MAX_USER_ADDRESS:
        raise UsageError(
            f"{where}.va: {address.va:#x}, expected a multiple of 4096 below "
            f"{VM_MAX_USER_ADDRESS:#x}"
        )
    bits = vpte_bits(address.bits, f"{where}.bits")
    if not address.page and address.bits != type(address)(va=0).bits:
        raise UsageError(f"{where}.bits: {address.bits!r}, expected with a page: V is clear")
    if address.page and address.page not in file.page:
        raise UsageError(
            f"{where}.page: {address.page!r}, expected a [page.NAME] "
            f"({', '.join(file.page) or 'there is none'})"
        )
    wanted = address.mapped or ("rw" if address.written is not None else "r" if address.tlb else "")
    key = "mapped" if address.mapped else "tlb"
    if wanted and not address.page:
        raise UsageError(f"{where}.{key}: without a page, expected {where.partition(':')[2]}.page")
    writes = address.mapped == "rw" or address.written is not None
    if (wanted and not bits & VPTE_V) or (writes and not bits & VPTE_RW):
        need = "V and RW" if writes else "V"
        raise UsageError(f"{where}.bits: {address.bits!r}, expected {need} for what is mapped")
    if address.written is not None:
        _word(address.written, f"{where}.written")
    if address.written is not None and not address.tlb:
        raise UsageError(
            f"{where}.written: {address.written}, expected with CPUs in tlb that write"
        )
    guests = {t.cpu: t.name for t in litmus.threads if t.kind == "guest"}
    for i, cpu in enumerate(address.tlb):
        if not 0 <= cpu < file.host.cpus:
            raise UsageError(
                f"{where}.tlb[{i}]: {cpu}, expected 0 to {file.host.cpus - 1} (host.cpus)"
            )
        if cpu in guests:
            raise UsageError(
                f"{where}.tlb[{i}]: CPU {cpu} runs the vkernel (thread {guests[cpu]}), expected "
                "one that runs the guest's process"
            )
    once(f"{where}.tlb", address.tlb)


def _word(value: int, where: str) -> None:
    if value > U64:
        raise UsageError(f"{where}: {value:#x}, expected a word of 64 bits")


def _tables(litmus: Litmus) -> None:
    try:
        litmus.tables()
    except ValueError as error:
        raise UsageError(
            f"{litmus.where}:va: {error}, expected addresses nearer to each other"
        ) from None


def _threads(litmus: Litmus) -> None:
    where, file = litmus.where, litmus.file
    seen: set[str] = set()
    runs: dict[int, str] = {}  # CPU -> the thread that it runs
    running = ("user", "guest", "fault")  # kinds of thread that are what their CPU runs
    for i, thread in enumerate(litmus.threads):
        here = f"{where}:thread[{i}]"
        if thread.name in seen:
            raise UsageError(f"{here}.name: {thread.name!r} is used twice, expected each once")
        seen.add(thread.name)
        _targets(litmus, thread)
        if thread.kind in PROGRAMS:  # their vCPUs are counted
            continue
        given = file.thread[i].cpu is not None
        place = "" if given else "; it is its place in the file: set cpu, or host.cpus"
        if not 0 <= thread.cpu < file.host.cpus:
            raise UsageError(
                f"{here}.cpu: {thread.cpu}, expected less than host.cpus ({file.host.cpus}){place}"
            )
        if thread.kind in running:
            other = runs.setdefault(thread.cpu, thread.name)
            if other != thread.name:
                raise UsageError(
                    f"{here}.cpu: CPU {thread.cpu} runs thread {other}, expected one of its own"
                    f"{place}"
                )
    for program in litmus.prepared:
        _targets(litmus, program)
        for statement in program.run:
            if statement.verb in ("await", "lock", "unlock", "hold", "hstore", "unhold"):
                raise UsageError(
                    f"{statement.where}: {statement.text!r}, expected it in a thread: what is "
                    "taken before is nobody's"
                )
    _order([s for t in (*litmus.prepared, *litmus.threads) for s in t.run])


def _targets(litmus: Litmus, thread: Program) -> None:
    for statement in thread.run:
        target = statement.target
        for what, there in (("va", litmus.file.va), ("page", litmus.file.page)):
            if target is not None and target in there:
                raise UsageError(
                    f"{statement.where}: {target!r} is a [{what}.{target}] too, expected another "
                    "register"
                )


def _order(said: list[Statement]) -> None:
    """What one statement needs another for."""
    posted = {s.args[0] for s in said if s.verb == "post" and s.args}
    for statement in said:
        if statement.verb == "await" and not posted.issuperset(statement.args):
            raise UsageError(
                f"{statement.where}: {statement.text!r}, expected a thread that posts it"
            )
        enters = statement.verb == "setvm" and statement.args == ("child",)
        child = enters or statement.verb == "child_fault"
        if child and not any(s.verb == "fork" for s in said):
            raise UsageError(f"{statement.where}: {statement.text!r}, expected a thread that forks")
    reuses_max = 8  # pages that the other process has room for
    once = ("exit_other", "vexit", "respawn")  # what ends, ends once
    for verb, most in (("reuse", reuses_max), *((verb, 1) for verb in once)):
        found = [s for s in said if s.verb == verb]
        if len(found) > most:
            raise UsageError(f"{found[most].where}: {verb!r}, expected at most {most} in a test")


def _atoms(litmus: Litmus) -> None:
    file = litmus.file
    for atom in litmus.atoms:
        where = f"{litmus.where}:outcome"
        head, dot, register = atom.partition(".")
        if dot and head in file.page and not any(t.name == head for t in litmus.threads):
            raise UsageError(
                f"{where}: {atom!r}, expected a word of the page, {head}[0], or a register: what "
                f"else there is to know of a page a verb says, e.g. `r0 = test_dirty {head}`"
            )
        if dot:
            targets = litmus.written(head)
            if any(t.name == head and t.kind in ("child", "image") for t in litmus.threads):
                raise UsageError(f"{where}: {atom!r}, expected the register of a process thread")
            if register not in targets:
                raise UsageError(
                    f"{where}: {atom!r} is written by no thread, expected {registers(litmus)}"
                )
            continue
        page, bracket, index = atom.partition("[")
        if page not in file.page or not bracket:
            raise UsageError(
                f"{where}: {atom!r}, expected {registers(litmus)} or a word of a page "
                f"({', '.join(f'{name}[0]' for name in file.page) or 'there is none'})"
            )
        if int(index.rstrip("]")) >= VPTE_PAGE_ENTRIES:
            raise UsageError(
                f"{where}: {atom!r}, expected a word from 0 to {VPTE_PAGE_ENTRIES - 1}"
            )


def registers(litmus: Litmus) -> str:
    """What a condition may read, of threads."""
    said = ((t.name, s.target) for t in (*litmus.prepared, *litmus.threads) for s in t.run)
    found = [f"{name}.{target}" for name, target in said if target]
    return f"a register ({', '.join(dict.fromkeys(found)) or 'none is written'})"
