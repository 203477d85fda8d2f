"""The end of a process: its PTEs go without IPIs, so nobody may still be using them."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation
from vkprotocol.mman import MAP_ANON, MAP_PRIVATE, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE

from tests.oracle.host import Host, drive
from tests.oracle.hunt import OneSwitch
from tests.oracle.scenarios import QUIET
from vkhost.kern.lwp import Lwp
from vkhost.kern.proc import lwp_exit, proc_create
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.vm.vm_mmap import sys_mmap

STEPS_MAX = 60  # more than the end of either thread takes


def ending() -> Host:
    """Two threads of one process have used its page, on a CPU each, and end."""
    host = Host(cpus=2, **QUIET)
    proc = proc_create(host.kernel, "native", None, 2)
    assert proc is not None
    for lwp in proc.lwps:
        drive(swtch_in(lwp))
    flags = MAP_ANON | MAP_PRIVATE
    error, va = drive(sys_mmap(proc, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0))
    assert not error
    for lwp in proc.lwps:
        drive(lwp.cpu.store(va, 1))
        host.on(f"lwp {lwp.tid}", lwp.cpu, leave(lwp))
    return host


async def leave(lwp: Lwp) -> None:
    await lwp_exit(lwp)


@pytest.mark.parametrize("first", [0, 1])
def test_a_thread_that_ends_is_off_its_cpu_before_the_last_one_removes_the_ptes(first: int) -> None:
    for steps in range(STEPS_MAX):
        host = ending()
        tids = sorted(host.execution.threads)[-2:]
        try:
            host.execution.run(OneSwitch(tids[first], steps), 10_000)
            host.oracle.finish()
        except Violation as failure:
            pytest.fail(f"switch after {steps} steps: {failure}")
        assert host.kernel.procs[-1].zombie
