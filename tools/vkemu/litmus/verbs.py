"""What a statement of a litmus thread does: the kernel's own functions, by short names."""

from __future__ import annotations

from msgspec import structs
from vkprotocol.effects import curthread
from vkprotocol.limits import U64

from vkemu.launch.elf import check_extra
from vkemu.litmus import calls, verbs_guest, verbs_page, verbs_vmspace  # noqa: F401 - they register
from vkemu.litmus.actor import CALLS, VERBS, Actor
from vkemu.litmus.document import Kind
from vkemu.litmus.file import Litmus, Program
from vkemu.litmus.machine import Machine
from vkemu.litmus.statement import Arg, Register, Said, Statement
from vkemu.verdict import UsageError

# Running, and checking what was written.


async def run_program(machine: Machine, program: Program, said: Said | None = None) -> None:
    """The body of a thread of the test."""
    kernel = machine.kernel
    me = Actor(machine, program, kernel.cpus[program.cpu])
    if program.kind not in ("pageout", "host"):
        kernel.bind(curthread().tid, me.cpu)
    registers = machine.registers[program.name]
    for statement in program.run:
        if statement.when is None or statement.when.holds(registers.get):
            me.statement = statement
            args = [
                value_of(me, arg) if isinstance(arg, Register) else arg for arg in statement.args
            ]
            value = await VERBS[statement.verb].do(me, *args)
            if statement.target is not None and value is not None:
                registers[statement.target] = int(value)
            if said is not None:
                said(program.name, statement, value)


async def run_before(machine: Machine, said: Said | None = None) -> None:
    """[[before]], one statement after the other."""
    for program in machine.litmus.prepared:
        for machine.beginning in program.run:
            await run_program(machine, structs.replace(program, run=(machine.beginning,)), said)


def value_of(me: Actor, register: Register) -> Arg:
    """What it holds, as a word."""
    value = me.machine.registers[me.program.name].get(register)
    if value is None:
        raise me.misused(f"{register} is not written yet, expected a value in it")
    return value & U64


def check_statements(litmus: Litmus) -> None:
    """UsageError for the first statement that its thread cannot say."""
    for statement in litmus.before:
        daemon = "daemon" in (CALLS[statement.verb].kinds if statement.verb in CALLS else ())
        kind: Kind = "daemon" if daemon else "process"
        _check(litmus, Program("before", kind, 0, litmus.before), statement)
    for program in (*litmus.prepared, *litmus.threads):
        for statement in program.run:
            _check(litmus, program, statement)


def _check(litmus: Litmus, program: Program, statement: Statement) -> None:
    where = statement.where
    verbs = VERBS if litmus.file.guest is None else CALLS
    entry = verbs.get(statement.verb)
    if entry is None or program.kind not in entry.kinds:
        known = ", ".join(sorted(n for n, e in verbs.items() if program.kind in e.kinds))
        raise UsageError(
            f"{where}: a {program.kind} thread cannot {statement.verb!r}, expected one of {known}"
        )
    most, least = len(entry.operands), len(entry.operands) - len(entry.defaults)
    if not least <= len(statement.args) <= most:
        raise UsageError(
            f"{where}: {statement.text!r} has {len(statement.args)} operands, expected "
            f"`{f'{statement.verb} {entry.form}'.strip()}`"
        )
    if statement.verb in ("execute", "try_execute"):
        check_extra(where)
    for operand, arg in zip(entry.operands.values(), statement.args, strict=False):
        expected = operand.mistake(litmus, arg)
        if expected:
            shown = repr(str(arg)) if isinstance(arg, str) else str(arg)
            raise UsageError(f"{where}: {shown} in {statement.text!r}, expected {expected}")
    for atom in statement.when.atoms if statement.when else ():
        if atom not in litmus.written(program.name):
            raise UsageError(f"{where}: {atom!r} is no register of {program.name}")
