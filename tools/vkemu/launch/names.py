"""What a scenario may name - policies, mutants, checks, workloads - each asked of its owner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vkprotocol.insn import Insn
from vkprotocol.param import PAGE_SIZE

from vkemu.launch.asm import assemble_text
from vkemu.oracle import CHECKS
from vkguest.kern.kern_exec import Program
from vkguest.kern.param import DATA_ADDRESS, DATA_PAGES_MAX, TEXT_ADDRESS
from vkguest.kern.syscall import Sys
from vkguest.mutants import MUTANTS as GUEST_MUTANTS
from vkguest.workloads import workload
from vkhost.mutants import MUTANTS
from vkhost.rmap import POLICIES

DATA_BYTES_MAX = DATA_PAGES_MAX * PAGE_SIZE
# `li r0, sys.fork` in a program's text.
SYMBOLS = {f"sys.{call.name.lower()}": int(call) for call in Sys}


def policies() -> list[str]:
    return sorted(POLICIES)


def mutants() -> list[str]:
    return sorted(MUTANTS)


def checks() -> list[str]:
    return sorted(CHECKS)


def guest_mutants() -> list[str]:
    return sorted(GUEST_MUTANTS)


def check_workload(spec: str) -> Program:
    return workload(spec)


def check_program(text: str, before: Sequence[Insn] = ()) -> tuple[Insn, ...]:
    return assemble_text(text, SYMBOLS, before)


def fixed_ranges(data: int) -> Iterator[tuple[int, int, str]]:
    """Where a program's own text and data lie."""
    yield TEXT_ADDRESS, TEXT_ADDRESS + PAGE_SIZE, "its text"
    yield DATA_ADDRESS, DATA_ADDRESS + data, "its data"
