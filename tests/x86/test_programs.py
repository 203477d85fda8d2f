"""Programs in machine code: the shipped ones, what they are built from, and files that are none."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from msgspec.structs import replace
from vkemu.executors.chance import seeded
from vkemu.launch.outcome import Outcome
from vkemu.launch.scenario import SHIPPED, load
from vkemu.oracle import Violation
from vkemu.report.trial import attempt
from vkemu.verdict import UsageError
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS

from vkguest.kern.errors import GuestPanic
from vkguest.kern.imgact_elf import elf_image

ROOT = Path(__file__).parents[2]
PROGRAMS = SHIPPED / "x86"
NAMES = sorted(file.stem for file in PROGRAMS.glob("*.elf"))


def run(name: str, seed: int = 1, *settings: str) -> Outcome:
    return attempt(load(name, settings), seeded(seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x86-hello", "x86-fork-cow", "x86-threads", "x86-float"])
@pytest.mark.parametrize("policy", ["pv_entry", "nested"])
def test_programs_judge_themselves_and_pass(name: str, policy: str) -> None:
    for seed in (1, 2):
        outcome = run(name, seed, f"policy={policy}")
        assert outcome.verdict == "pass", outcome.error


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake", ["cow-of-the-bottom", "older-page-wins", "fork-without-protect"]
)
def test_a_program_notices_a_copy_of_the_wrong_layer(mistake: str) -> None:
    scenario = load("x86-fork-cow")
    (guest,) = scenario.guest
    planted = replace(scenario, guest=(replace(guest, mutants=(mistake,)),))

    assert isinstance(attempt(planted, seeded(1)).error, Violation)
    by_itself = attempt(replace(planted, checks=("interlock",)), seeded(1)).error
    assert "fork_cow exits with status 1" in str(by_itself)


@pytest.mark.slow
def test_a_page_that_is_not_in_its_object_is_a_panic() -> None:
    scenario = load("buildworld-lite")
    (guest,) = scenario.guest
    planted = replace(scenario, guest=(replace(guest, mutants=("older-page-wins",)),))

    assert isinstance(attempt(planted, seeded(1)).error, GuestPanic)


@pytest.mark.slow
def test_a_short_buildworld_passes_and_the_books_agree() -> None:
    guest = (
        'guest=[{name="g1",memory="138p",swap="70p",vcpus=4,quantum=4000,'
        'programs=["x86/cc.elf"],process=[{program="x86/shell.elf",args=["02"]}]}]'
    )
    assert run("buildworld-lite", 1, guest).error is None


@pytest.mark.long
@pytest.mark.parametrize("name", ["x86-sort", "buildworld-lite"])
@pytest.mark.parametrize("policy", ["pv_entry", "vpte_list", "nested", "wired"])
def test_long_programs_pass_too(name: str, policy: str) -> None:
    outcome = run(name, 1, f"policy={policy}")
    assert outcome.verdict == "pass", outcome.error


def compiler_of(elf: Path) -> str:
    with elf.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".comment")
        assert section is not None
        comment: bytes = section.data()
    return str(comment.rstrip(b"\0").decode())


def test_every_program_is_what_its_source_gives(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    subprocess.run(["sh", "tests/x86/programs/build.sh", str(tmp_path)], cwd=ROOT, check=True)
    built = sorted(file.stem for file in tmp_path.glob("*.elf"))
    assert built == NAMES
    if compiler_of(tmp_path / "hello.elf") != compiler_of(PROGRAMS / "hello.elf"):
        pytest.skip(f"needs {compiler_of(PROGRAMS / 'hello.elf')}")
    for name in NAMES:
        assert (tmp_path / f"{name}.elf").read_bytes() == (PROGRAMS / f"{name}.elf").read_bytes()


@pytest.mark.parametrize(
    ("at", "raw", "says"),
    [
        (0, b"\0", "byte 0: no ELF"),
        (4, b"\1", "byte 4: not for x86-64"),
        (16, b"\3", "byte 16: ELF type 3"),
        (56, b"\xff\xff", "byte 32: 65535 program headers"),
        (24, bytes(8), "byte 24: the entry 0x0"),
        (64 + 8, b"\1", "byte 64: offset 1 and address 0x400000"),
        (64 + 36, b"\xff", "byte 64: a segment"),
        (64, b"\2", "byte 64: linked dynamically"),
        (64 + 56 + 16, (0x400000).to_bytes(8, "little"), "byte 120"),
        (64 + 23, b"\xff", "byte 64: .* are no user memory"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_where(at: int, raw: bytes, says: str) -> None:
    good = (PROGRAMS / "hello.elf").read_bytes()
    with pytest.raises(ValueError, match=says):
        elf_image("x", good[:at] + raw + good[at + len(raw) :])


def elf_of(phoff: int, va: int, size: int) -> bytes:
    """Two program headers at `phoff`: a segment of `size` bytes at `va`, and nothing."""
    fields = (2, 62, 1, va, phoff, 0, 0, 64, 56, 2, 0, 0, 0)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", *fields)
    load, executable = 1, 5
    segment = struct.pack("<IIQQQQQQ", load, executable, 0, va, va, 0, size, PAGE_SIZE)
    return header.ljust(phoff, b"\0") + segment + bytes(56)


@pytest.mark.parametrize("va", [PAGE_SIZE, VM_MAX_USER_ADDRESS - PAGE_SIZE])
def test_a_file_of_which_nothing_is_too_much_is_loaded(va: int) -> None:
    """Its last byte is that of the program headers; first and last page of user memory."""
    image = elf_image("x", elf_of(PAGE_SIZE, va, PAGE_SIZE))

    (segment,) = image.segments
    assert (segment.start, segment.end, image.phnum) == (va, va + PAGE_SIZE, 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('program = "nothing.elf"', r"guest\[0\].process\[0\].program: .*nothing.elf: No such"),
        ('program = "x.elf"', r"process\[0\].program: x.elf: byte 0: no ELF"),
        ('program = "li r0, 1"\nargs = ["a"]', r"process\[0\].args: expected with an .elf"),
        ('program = "h.elf"\ndata = "2p"', r"process\[0\]: region or data"),
        ('program = "h.elf"\n[[guest.file]]\nname = "f"', r"file\[0\]: expected a name"),
    ],
)
def test_a_scenario_that_names_bad_files_is_one_line(
    change: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "x.elf").write_bytes(b"hello")
    (tmp_path / "h.elf").write_bytes((PROGRAMS / "hello.elf").read_bytes())
    file = tmp_path / "s.toml"
    file.write_text(f'[[guest]]\nname = "g"\nmemory = "1M"\n[[guest.process]]\n{change}\n')

    with pytest.raises(UsageError, match=says):
        load(str(file))


@pytest.mark.slow
def test_the_reference_notices_a_stale_translation_of_machine_code() -> None:
    stale = ('checks=["reference"]', 'mutants=["lazy-tlb"]')
    error = run("x86-fork-cow", 1, *stale).error
    assert isinstance(error, Violation)
    assert (error.invariant, error.check) == (11, "reference")
