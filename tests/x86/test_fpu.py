"""npx.c and cpu_regs.c: as patched the programs pass; each old form fails the one that it hurts,
and no other."""

from __future__ import annotations

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.scenario import load
from vkemu.report.trial import attempt

# What float.c does with each argument.
DENORMALS, SIGNALS, X87, AVX, CPUID = "dsxac"
SIGFPE, SIGILL = "dies of signal 8", "dies of signal 4"
WRONG = "exits with status 1"


def ends(what: str, *mutants: str, seed: int = 1) -> str:
    """How the program ends on one vCPU: "" when it passes."""
    guest = (
        'guest=[{name="g1",memory="1M",vcpus=1,quantum=2000,mutants=['
        + ",".join(f'"{mutant}"' for mutant in mutants)
        + f'],process=[{{program="x86/float.elf",args=["{what}"]}}]}}]'
    )
    error = attempt(load("x86-float", [guest]), seeded(seed)).error
    return "" if error is None else str(error)


@pytest.mark.slow
@pytest.mark.parametrize("what", [DENORMALS, SIGNALS, X87, AVX])
def test_as_patched_every_program_passes(what: str) -> None:
    assert ends(what) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "what", "how"),
    [
        # npx.c:npxdna: MXCSR against 0xFFBF, which has no DAZ: masked, and SIGFPE.
        ("npx-mask-ffbf", DENORMALS, SIGFPE),
        # npx.c:fpusave: fxsave for fxsave64.
        ("npx-fxsave32", X87, WRONG),
        # cpu_regs.c: AVX in cpu_feature2.
        ("cpu-feature2-avx", AVX, SIGILL),
        # trap.c:go_user: PGEX_FPFAULT not set.
        ("npx-no-fpfault", DENORMALS, WRONG),
        # npx.c:npxpush, npxpop.
        ("npx-not-pushed", SIGNALS, WRONG),
    ],
)
def test_an_old_form_is_caught_by_its_program(mutant: str, what: str, how: str) -> None:
    assert how in ends(what, mutant)


@pytest.mark.slow
def test_a_program_that_executes_cpuid_sees_the_hosts_avx() -> None:
    """Nothing makes CPUID trap for a vkernel: the mask of cpu_feature2 does not reach it."""
    assert SIGILL in ends(CPUID)


@pytest.mark.long
@pytest.mark.parametrize("mutant", ["npx-mask-ffbf", "npx-fxsave32", "cpu-feature2-avx"])
@pytest.mark.parametrize("what", [DENORMALS, SIGNALS, X87, AVX])
def test_an_old_form_hurts_no_other_program(mutant: str, what: str) -> None:
    theirs = {"npx-mask-ffbf": DENORMALS, "npx-fxsave32": X87, "cpu-feature2-avx": AVX}
    if what != theirs[mutant]:
        assert ends(what, mutant) == ""
