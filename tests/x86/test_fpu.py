"""npx.c and cpu_regs.c: as patched the programs pass; each old form fails the one that it hurts,
and no other."""

from __future__ import annotations

import msgspec
import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.scenario import load
from vkemu.report.trial import attempt

from vkguest.quirks import Quirks

# What float.c does with each argument.
DENORMALS, SIGNALS, X87, AVX, CPUID = "dsxac"
SIGFPE, SIGILL = "dies of signal 8", "dies of signal 4"
WRONG = "exits with status 1"


def ends(what: str, settings: str = "", seed: int = 1) -> str:
    """How the program ends on one vCPU, with `settings` of the guest: "" when it passes."""
    guest = (
        f'guest=[{{name="g1",memory="1M",vcpus=1,quantum=2000,{settings + "," if settings else ""}'
        f'process=[{{program="x86/float.elf",args=["{what}"]}}]}}]'
    )
    error = attempt(load("x86-float", [guest]), seeded(seed)).error
    return "" if error is None else str(error)


@pytest.mark.slow
@pytest.mark.parametrize("what", [DENORMALS, SIGNALS, X87, AVX])
def test_as_patched_every_program_passes(what: str) -> None:
    assert ends(what) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "what", "how"),
    [
        # npx.c:npxdna: MXCSR against 0xFFBF, which has no DAZ: masked, and SIGFPE.
        ("quirks={mxcsr_mask_ffbf=true}", DENORMALS, SIGFPE),
        # npx.c:fpusave: fxsave for fxsave64.
        ("quirks={fxsave32=true}", X87, WRONG),
        # cpu_regs.c: AVX in cpu_feature2.
        ("quirks={cpu_feature2_avx=true}", AVX, SIGILL),
        # All of them.
        ('tree="2020"', X87, WRONG),
        # trap.c:go_user: PGEX_FPFAULT not set.
        ('mutants=["npx-no-fpfault"]', DENORMALS, WRONG),
        # npx.c:npxpush, npxpop.
        ('mutants=["npx-not-pushed"]', SIGNALS, WRONG),
    ],
)
def test_an_old_form_is_caught_by_its_program(settings: str, what: str, how: str) -> None:
    assert how in ends(what, settings)


def test_a_guest_is_as_its_own_tree_has_it_but_for_what_is_set() -> None:
    assert not any(msgspec.structs.astuple(Quirks().on("2026")))
    assert all(msgspec.structs.astuple(Quirks().on("5.4")))
    assert Quirks(fxsave32=False).on("2020").fxsave32 is False


@pytest.mark.slow
def test_a_program_that_executes_cpuid_sees_the_hosts_avx() -> None:
    """Nothing makes CPUID trap for a vkernel: the mask of cpu_feature2 does not reach it."""
    assert SIGILL in ends(CPUID)


@pytest.mark.long
@pytest.mark.parametrize("quirk", ["mxcsr_mask_ffbf", "fxsave32", "cpu_feature2_avx"])
@pytest.mark.parametrize("what", [DENORMALS, SIGNALS, X87, AVX])
def test_an_old_form_hurts_no_other_program(quirk: str, what: str) -> None:
    theirs = {"mxcsr_mask_ffbf": DENORMALS, "fxsave32": X87, "cpu_feature2_avx": AVX}
    if what != theirs[quirk]:
        assert ends(what, f"quirks={{{quirk}=true}}") == ""
