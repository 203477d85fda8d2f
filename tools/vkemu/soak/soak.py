"""A host and its visitors on one event loop, for a while, and what is left when all have gone."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

import anyio
import msgspec

from vkemu.executors.live import Live
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import FAILURES, headline
from vkemu.launch.scenario import Scenario, read
from vkemu.launch.setting import lay_over, read_setting
from vkemu.serving.server import Overdue, Server
from vkemu.serving.status import status
from vkemu.serving.transport import Broken, Stream, memory_pair
from vkemu.soak.samples import Sample, growth, judgeable, sample
from vkemu.soak.visitors import ENDED, Probe, visit
from vkemu.verdict import Verdict

SLOTS: Final = 6  # visitors at a time
# Too little memory for SLOTS guests, with the thresholds of so small a host.
HOST: Final = {
    "pages": 130, "cpus": 2 * SLOTS + 1, "swap_pages": 65536,
    "free_min": 12, "free_reserved": 8, "free_severe": 6, "free_target": 28, "cache_min": 12,
    "inactive_target": 80, "pageout_free_min": 8, "interrupt_free_min": 4,
}  # fmt: skip
STAND_IN: Final = {"name": "visitors", "memory": "256K", "workloads": ["touch"]}


def host(policy: str, mutants: list[str], faults: list[str]) -> Scenario:
    document = {"name": "soak", "policy": policy, "mutants": mutants, "host": HOST}
    lay_over(document, read_setting(f"fault = [{', '.join(faults)}]", Scenario))
    scenario = read({**document, "guest": [STAND_IN]}, Path("vkemu soak"), served=True)
    return msgspec.structs.replace(scenario, guest=())


class Soak:
    """`main` is for the event loop; what it has found is in the attributes."""

    def __init__(self, scenario: Scenario, seconds: float, seed: int) -> None:
        self.seconds = seconds
        self.seed = seed
        self.samples: list[Sample] = []
        self.visits: Counter[str] = Counter()
        self.wrong: list[str] = []  # violations, ours included
        self.kept: list[str] = []  # after everybody has gone
        self.live = Live(time_scale=1.0)
        self.machine = assemble(scenario, None, self.live)
        oracle = self.machine.oracle
        self.server = Server(
            self.live,
            self.machine.kernel,
            lambda line: None,
            on_violation="guest",
            blame=oracle.blame,
            failures=FAILURES,
            forget=oracle.forget,
        )
        self._free = self._free_pages()
        self._threads = self._thread_names()
        self._began = 0.0
        self._waits: list[float] = []
        self._over = anyio.CancelScope()

    def stop(self) -> None:
        """Before its time; what is known by then counts."""
        self._over.cancel()

    async def main(self) -> None:
        self._began = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(self._serve)
            with self._over:
                self._over.deadline = self._began + self.seconds
                async with anyio.create_task_group() as visitors:
                    visitors.start_soon(self._probe, group)
                    visitors.start_soon(self._sample)
                    for slot in range(SLOTS):
                        visitors.start_soon(self._come_and_go, slot, group)
            if not self.live.over:
                self._take_sample()
                await self._see_off()
            self.server.shutdown()
        self._conclude()

    async def _serve(self) -> None:
        try:
            await self.server.run()
        except (Overdue, *FAILURES) as error:
            self.wrong.append(headline(error))
        self._over.cancel()

    def _dial(self, group: anyio.abc.TaskGroup) -> Stream:
        near, far = memory_pair()
        group.start_soon(self.server.serve, far)
        return near

    async def _come_and_go(self, slot: int, group: anyio.abc.TaskGroup) -> None:
        random = Random(f"{self.seed} {slot}")
        number = 0
        while True:
            number += 1
            name = f"v{slot}-{number}"
            became, wrong = await visit(random, name, lambda: self._dial(group))
            self.visits[became] += 1
            self.wrong += wrong
            await anyio.lowlevel.checkpoint()

    async def _probe(self, group: anyio.abc.TaskGroup) -> None:
        probe_seconds = 0.02  # between two questions of the quiet guest
        while True:
            probe = Probe(self._dial(group))
            try:
                await probe.greet()
                while True:
                    self._waits.append(await probe.ask())
                    await anyio.sleep(probe_seconds)
            except Broken:
                self.visits["probe sent away"] += 1  # for memory, as any other
            finally:
                with anyio.CancelScope(shield=True):
                    await probe.aclose()

    async def _sample(self) -> None:
        samples = 240
        while True:
            await anyio.sleep(self.seconds / samples)
            self._take_sample()

    def _take_sample(self) -> None:
        waits, self._waits = self._waits, []
        now = anyio.current_time() - self._began
        free, descriptors = self._free_pages(), open_descriptors()
        self.samples.append(sample(now, status(self.server), free, descriptors, waits))

    def _free_pages(self) -> int:
        return int(self.machine.kernel.vmstats.v_free_count.value)

    async def _see_off(self) -> None:
        """Everybody has left: so must all that was theirs."""
        looks = 10_000  # at least 10 s; counted, for a machine that is busy elsewhere is no leak
        for _ in range(looks):
            self.kept = self._left()
            if not self.kept:  # nobody tells of all of it
                break
            await anyio.sleep(0.001)

    def _left(self) -> list[str]:
        kernel = self.machine.kernel
        threads = Counter(self._thread_names())
        threads.subtract([*self._threads, "init"])
        left = {
            "sessions": len(self.server.sessions),
            "processes": sum(not proc.zombie for proc in kernel.procs),
            "objects": len(kernel.objects),
            "frames": self._free - self._free_pages(),
            **{f"threads {name}": n for name, n in threads.items()},
        }
        return [f"{n} {what} kept" for what, n in left.items() if n > 0]

    def _thread_names(self) -> list[str]:
        return [thread.name for thread in self.live.threads.values()]

    def _conclude(self) -> None:
        self.wrong += self.server.containment.violations
        if bugs := self.server.counts["bugs"]:
            self.wrong.append(f"{bugs} bugs in vkemu itself")
        if not self.wrong:
            try:
                self.machine.oracle.finish()
            except FAILURES as error:
                self.wrong.append(headline(error))

    def report(self) -> dict[str, Any]:
        """What is written: the verdict with its reasons, what came, and every sample."""
        judged = judgeable(self.samples)
        grown = growth(self.samples) if judged else []
        reasons = [*self.wrong, *self.kept, *grown]
        verdict: Verdict = "fail" if reasons else "pass"
        if not reasons and not self.visits[ENDED]:
            verdict, reasons = "unknown", ["no guest ran to its end"]
        kernel = self.machine.kernel
        return {
            "verdict": verdict,
            "reasons": reasons,
            "growth_judged": judged,
            "policy": kernel.policy,
            "seed": self.seed,
            "seconds": self.samples[-1].seconds if self.samples else 0.0,
            "visits": dict(sorted(self.visits.items())),
            "counts": dict(sorted(self.server.counts.items())),
            "steps": self.live.steps,
            "counters": self.machine.counters(),
            "samples": self.samples,
        }


def open_descriptors() -> int:
    """Of this process; 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no path is wanted
    except OSError:
        return 0
