"""The per-CPU fault worker: where page faults of the thread on that CPU are resolved.

It stands for the trap frame of that thread: the two never run at the same time, but between any
two steps of a fault, faults of other CPUs, the pageout daemon and the guests go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import curthread

if TYPE_CHECKING:
    from vkhost.pc64.cpu import Cpu


async def fault_worker(cpu: Cpu) -> None:
    kernel = cpu.kernel
    kernel.bind(curthread().tid, cpu)
    while True:
        request = await cpu.faults.recv()
        result = await kernel.vm_fault(
            request.vm_map, request.va, request.fault_type, request.fault_flags, request.write
        )
        await cpu.fault_results.send(result)
