"""kern_fork.c: what a process is made of."""

from __future__ import annotations

import pytest

from tests.vkguest import rig
from vkguest.asm import PID, SCRATCH
from vkguest.kern.kern_exec import Program
from vkguest.kern.syscall import Sys
from vkguest.workloads.words import begin


def crew() -> Program:
    asm = begin()
    asm.target(SCRATCH, "lwp")
    for tid in (1, 2, 3):
        asm.call_regs(Sys.LWP_CREATE, SCRATCH, PID)
        asm.check_result(tid)
    asm.exit(0)
    asm.label("lwp")
    asm.call(Sys.EXTEXIT, 0)
    return Program("crew", asm.text(), 1)


def test_each_lwp_of_a_process_has_a_number_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig, "workload", lambda spec: crew())

    assert rig.on_fake(["crew"], vcpus=2).outcomes == {1: ("crew", 0)}
