"""Where machine code was when a run failed: program, function, source line, by its ELF's tables."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vkemu.launch.assemble import Machine
from vkguest.kern.imgact_elf import ElfImage

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile


def code_lines(machine: Machine) -> Iterator[str]:
    """A line for each virtual CPU that has executed machine code: the instruction it is in the
    middle of, as the CPU of an access that is at fault is, or the last."""
    cpus = {(proc.pid, lwp.tid): lwp.cpu for proc in machine.kernel.procs for lwp in proc.lwps}
    for guest in machine.guests:
        for gd in guest.cpus:
            ran, cpu = gd.ran, cpus.get((int(guest.proc), gd.cpuid))
            if ran is None or cpu is None:
                continue
            begun = cpu.runs == ran.number
            where = place_of(ran.program, cpu.rip if begun else ran.rip)
            does = "runs" if gd.curproc.value == ran.pid else "ran"
            yield f"{guest.name}.{gd.cpuid} {does} {ran.program.name} (pid {ran.pid}) at {where}"


def place_of(image: ElfImage, rip: int) -> str:
    """`0x40013a, main+0x52, tests/x86/programs/cc.c:14`, as far as the file tells."""
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError:  # the extra has it
        return f"{rip:#x}"
    elf = ELFFile(io.BytesIO(image.raw))
    parts = [f"{rip:#x}", _function(elf, rip), _line(elf, rip)]
    return ", ".join(part for part in parts if part)


def _function(elf: ELFFile, rip: int) -> str:
    table: Any = elf.get_section_by_name(".symtab")
    if table is None:
        return ""
    for symbol in table.iter_symbols():
        start = symbol["st_value"]
        if symbol["st_info"]["type"] == "STT_FUNC" and start <= rip < start + symbol["st_size"]:
            return f"{symbol.name}+{rip - start:#x}"
    return ""


def _line(elf: ELFFile, rip: int) -> str:
    """The row of the line table that begins at or before rip, in the sequence that holds it."""
    if not elf.has_dwarf_info():
        return ""
    dwarf = elf.get_dwarf_info()
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        before = None
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            if before is not None and before.address <= rip < state.address:
                return f"{_file(program.header, before.file)}:{before.line}"
            before = None if state.end_sequence else state
    return ""


def _file(header: Any, number: int) -> str:
    """A file of the table, in the folder the compiler was told; DWARF 4 counts both from 1."""
    entry = header["file_entry"][number - (header["version"] < 5)]
    folders = header["include_directory"]
    name: str = entry.name.decode()
    if header["version"] >= 5 or not entry.dir_index:
        return name
    return f"{folders[entry.dir_index - 1].decode()}/{name}"
