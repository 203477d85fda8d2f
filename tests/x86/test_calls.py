"""System calls of programs in machine code, and what each program finds when one is as it was."""

from __future__ import annotations

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.scenario import load
from vkemu.report.trial import attempt

# What calls.c does with each argument.
NANOSLEEP, VFORK, SIGNALS, RANGES, LWPS, FILES = "nvsrlf"


def ends(what: str, settings: str = "", seed: int = 1, policy: str = "pv_entry") -> str:
    """How the program ends on two vCPUs, with `settings` of the guest: "" when it passes."""
    guest = (
        'guest=[{name="g1",memory="74p",swap="30p",vcpus=2,quantum=300,'
        f'programs=["x86/calls.elf"],{settings + "," if settings else ""}'
        'file=[{name="data",words=5120}],'
        f'process=[{{program="x86/calls.elf",args=["{what}"]}}]}}]'
    )
    error = attempt(load("x86-calls", [guest, f"policy={policy}"]), seeded(seed)).error
    return "" if error is None else str(error)


@pytest.mark.slow
@pytest.mark.parametrize("what", [NANOSLEEP, VFORK, SIGNALS, RANGES, LWPS, FILES])
def test_each_passes(what: str) -> None:
    assert ends(what) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "what", "how"),
    [
        # kern_timeout.c:softclock_handler.
        ("quirks={callout_verifier_check=true}", NANOSLEEP, "verifier"),
        # kern_fork.c:start_forked_proc, P_PPWAIT.
        ('mutants=["vfork-no-wait"]', VFORK, "exits with status 1"),
        # vnode_pager.c:vnode_pager_putpages: before the program does, the reference notices.
        ('mutants=["disk-write-lost"]', FILES, "invariant 11"),
    ],
)
def test_an_old_form_and_a_defect_are_caught(settings: str, what: str, how: str) -> None:
    assert how in ends(what, settings)


@pytest.mark.slow
def test_what_a_unix_program_asks_for_besides_memory() -> None:
    """Of signals too: one that is pending is sent again, and handled once (unix.c:masks)."""
    error = attempt(load("x86-unix", []), seeded(1)).error

    assert error is None, error
