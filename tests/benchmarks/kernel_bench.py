"""Faults a second, controlled and live, and what a guest and a frame cost in memory.

python tests/benchmarks/kernel_bench.py
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
from vkemu.executors.backend import on_backend
from vkemu.executors.chance import seeded
from vkemu.executors.controlled import Execution
from vkemu.executors.live import Live
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import Recorder
from vkemu.launch.scenario import Scenario, load

from vkhost.config import HostConfig
from vkhost.kernel import Kernel

SEEDS = 5


def main() -> None:
    scenario = load("quickstart")
    faults_controlled(scenario)
    for backend in ("trio", "asyncio"):
        faults_live(scenario, backend)
    frames = memory_of(lambda: kernel_of(3000)) - memory_of(lambda: kernel_of(1000))
    print(f"memory per 1000 frames  {frames / 2 / 1024:,.0f} KiB untouched")
    print(f"memory per guest        {guest_bytes() / 1024:,.0f} KiB after boot and its programs")


def faults_controlled(scenario: Scenario) -> None:
    start = time.perf_counter()
    faults = steps = 0
    for seed in range(1, SEEDS + 1):
        machine = assemble(scenario)
        recorder = Recorder(seeded(seed))
        machine.execution.run(recorder, scenario.max_steps)
        steps += len(recorder.choices)
        faults += machine.kernel.vmmeter.counters["v_vm_faults"]
    say("controlled", steps, faults, time.perf_counter() - start)


def faults_live(scenario: Scenario, backend: str) -> None:
    live = Live(max_steps=scenario.max_steps, record=True)
    machine = assemble(scenario, None, live)
    start = time.perf_counter()
    on_backend(backend, live.run)
    assert live.schedule is not None
    faults = machine.kernel.vmmeter.counters["v_vm_faults"]
    say(f"live on {backend}", len(live.schedule), faults, time.perf_counter() - start)


def say(what: str, steps: int, faults: int, seconds: float) -> None:
    print(f"{what:<24}{steps / seconds:,.0f} steps/s, {faults / seconds:,.0f} faults/s")


def kernel_of(pages: int) -> Kernel:
    execution = Execution()
    return Kernel(HostConfig(pages=pages, cpus=2, pageout=False), "pv_entry", execution.spawn)


def memory_of(build: Callable[[], Any]) -> int:
    gc.collect()
    tracemalloc.start()
    kept = build()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return size


def guest_bytes() -> float:
    """The slope between one guest and four of the same."""
    one = msgspec.structs.replace(load("fleet"), seed=1)
    few = msgspec.structs.replace(one, guest=one.guest[:1])
    more = msgspec.structs.replace(one, guest=one.guest[:4])
    return (memory_of(lambda: run_to_end(more)) - memory_of(lambda: run_to_end(few))) / 3


def run_to_end(scenario: Scenario) -> Any:
    machine = assemble(scenario)
    machine.execution.run(seeded(1), scenario.max_steps)
    return machine


if __name__ == "__main__":
    main()
