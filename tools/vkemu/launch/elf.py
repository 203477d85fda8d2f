"""Programs in machine code and files of a scenario: read, checked, and handed to the guest."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from vkemu.verdict import UsageError
from vkguest.kern.imgact_elf import ElfImage, ElfProgram, elf_image

if TYPE_CHECKING:
    from vkemu.launch.scenario import Guest, Process, Scenario

ELF = ".elf"


def is_elf(program: str) -> bool:
    """A file to load, and not the text of a program."""
    return program.endswith(ELF) and "\n" not in program


def blobs_of(scenario: Scenario, path: Path) -> dict[str, bytes]:
    """What the scenario's files hold, by the path it gives, from its own folder on. They are part
    of what it is."""
    found: dict[str, bytes] = {}
    for i, guest in enumerate(scenario.guest):
        where = f"{path}:guest[{i}]"
        for j, process in enumerate(guest.process):
            if is_elf(process.program):
                _read(found, path, process.program, f"{where}.process[{j}].program")
        for j, program in enumerate(guest.programs):
            _read(found, path, program, f"{where}.programs[{j}]")
        for j, file in enumerate(guest.file):
            if file.path:
                _read(found, path, file.path, f"{where}.file[{j}].path")
    return found


def _read(found: dict[str, bytes], path: Path, name: str, where: str) -> None:
    file = path.parent / name
    bytes_max = 16 << 20
    try:
        with file.open("rb") as stream:
            raw = stream.read(bytes_max + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{where}: {file}: {reason}, expected a file") from None
    if len(raw) > bytes_max:
        raise UsageError(f"{where}: {file}: more than {bytes_max} bytes")
    found[name] = raw


def check_elf(scenario: Scenario, where: str) -> None:
    """Every program is an ELF the guest can load, every file has a content and a name of its own,
    and what executes them is installed."""
    for i, guest in enumerate(scenario.guest):
        here = f"{where}:guest[{i}]"
        for j, process in enumerate(guest.process):
            if not is_elf(process.program):
                if process.args:
                    raise UsageError(f"{here}.process[{j}].args: expected with an .elf program")
                continue
            _image(scenario, process.program, f"{here}.process[{j}].program")
            if process.region or process.data != "1p":
                raise UsageError(
                    f"{here}.process[{j}]: region or data, expected none with an .elf program"
                )
        for j, program in enumerate(guest.programs):
            _image(scenario, program, f"{here}.programs[{j}]")
        names: set[str] = set()
        for j, file in enumerate(guest.file):
            if file.name in names or bool(file.path) is bool(file.words):
                raise UsageError(f"{here}.file[{j}]: expected a name of its own, and path or words")
            names.add(file.name)
    if scenario.blobs:
        check_extra(where)


def check_extra(where: str) -> None:
    """What executes machine code is installed, and loads."""
    try:
        importlib.import_module("vkhost.pc64.unicorn_cpu")
    except ImportError as error:
        raise UsageError(
            f"{where}: machine code, expected the extra: pip install 'vkemu[x86]' ({error})"
        ) from None


def _image(scenario: Scenario, program: str, where: str) -> ElfImage:
    try:
        return elf_image(Path(program).stem, scenario.blobs[program])
    except ValueError as error:
        raise UsageError(f"{where}: {program}: {error}") from None


def images_of(guest: Guest, blobs: Mapping[str, bytes]) -> list[ElfImage]:
    """What the guest can exec, by the stem of its file's name."""
    paths = [process.program for process in guest.process if is_elf(process.program)]
    paths += guest.programs
    return [elf_image(Path(path).stem, blobs[path]) for path in dict.fromkeys(paths)]


def elf_program(process: Process, blobs: Mapping[str, bytes]) -> ElfProgram:
    image = elf_image(Path(process.program).stem, blobs[process.program])
    return ElfProgram(image, (image.name, *process.args), image.name)


def files_of(guest: Guest, blobs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Contents by name: of a path, or random words of 62 bits from a seed."""
    found: dict[str, bytes] = {}
    for file in guest.file:
        if file.path:
            found[file.name] = blobs[file.path]
        else:
            random = Random(file.seed)
            words = (random.getrandbits(62) for _ in range(file.words))
            found[file.name] = b"".join(word.to_bytes(8, "little") for word in words)
    return found
