"""What a statement of a litmus thread does: the kernel's own functions, by short names."""

from __future__ import annotations

from vkprotocol.effects import curthread

from vkemu.litmus import verbs_guest, verbs_page, verbs_vmspace  # noqa: F401 - they register
from vkemu.litmus.actor import VERBS, Actor, Entry
from vkemu.litmus.file import Litmus, Program, vpte_bits
from vkemu.litmus.machine import Machine
from vkemu.litmus.statement import Statement
from vkemu.verdict import UsageError

# Running, and checking what was written.


async def run_program(machine: Machine, program: Program) -> None:
    """The body of a thread of the test."""
    kernel = machine.kernel
    me = Actor(machine, program, kernel.cpus[program.cpu])
    if program.kind not in ("pageout", "host"):
        kernel.bind(curthread().tid, me.cpu)
    registers = machine.registers[program.name]
    for statement in program.run:
        if statement.when is None or statement.when.holds(registers.get):
            value = await VERBS[statement.verb].do(me, *statement.args)
            if statement.target is not None and value is not None:
                registers[statement.target] = int(value)


def check_statements(litmus: Litmus) -> None:
    """UsageError for the first statement that its thread cannot say."""
    for i, program in enumerate(litmus.threads):
        for j, statement in enumerate(program.run):
            _check(litmus, program, statement, f"{litmus.where}:thread[{i}].run[{j}]")


def _check(litmus: Litmus, program: Program, statement: Statement, where: str) -> None:
    entry = VERBS.get(statement.verb)
    if entry is None or program.kind not in entry.kinds.split():
        known = ", ".join(n for n, e in VERBS.items() if program.kind in e.kinds.split())
        raise UsageError(
            f"{where}: a {program.kind} thread cannot {statement.verb!r}, expected one of {known}"
        )
    needed = entry.args.partition("?")[0]
    letters = entry.args.replace("?", "")
    if not len(needed) <= len(statement.args) <= len(letters):
        raise UsageError(
            f"{where}: {statement.text!r} has {len(statement.args)} arguments, expected "
            f"{len(needed)}" + (f" to {len(letters)}" if letters != needed else "")
        )
    for letter, arg in zip(letters, statement.args, strict=False):
        expected = _mistake(litmus, entry, letter, arg)
        if expected:
            raise UsageError(f"{where}: {arg!r} in {statement.text!r}, expected {expected}")
    for atom in statement.when.atoms if statement.when else ():
        if atom not in {s.target for s in program.run}:
            raise UsageError(f"{where}: {atom!r} is no register of {program.name}")


def _mistake(litmus: Litmus, entry: Entry, letter: str, arg: int | str) -> str:
    """What was expected where `arg` stands, or nothing."""
    match letter:
        case "v":
            return "" if isinstance(arg, int) or arg in litmus.file.va else "a [va.NAME]"
        case "p":
            return "" if isinstance(arg, int) or arg in litmus.file.page else "a [page.NAME]"
        case "n":
            return "" if isinstance(arg, int) else "a number"
        case "l":
            return "" if arg in (0, 9, 18, 27) else "a level: 0, 9, 18 or 27"
        case "a":
            return "" if arg in entry.words else "one of " + ", ".join(entry.words)
        case _:
            try:
                vpte_bits(str(arg), "")
            except UsageError:
                return "VPTE bits, e.g. V|RW|U|A|M"
            return ""
