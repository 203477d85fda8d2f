"""What an execution of a kernel litmus costs, by what it is spent on.

    python tests/benchmarks/litmus_bench.py [--seconds 2] [WINDOW[+VARIANT]:POLICY ...]

`made`: every execution sets its machine up. `put back`: as it is, the first three do. Both take the
same executions, in turns in one process; figures are microseconds of processor time for each.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import defaultdict
from pathlib import Path
from time import process_time
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "tools")]

from vkemu.exploration.program import Program  # noqa: E402
from vkemu.exploration.run import Run  # noqa: E402
from vkemu.exploration.strategies import strategy_named  # noqa: E402
from vkemu.litmus import decide  # noqa: E402
from vkemu.litmus.file import load_litmus  # noqa: E402
from vkemu.oracle import Oracle  # noqa: E402

PHASES = ("set-up", "prefix", "steps", "oracle", "reduction", "end")
TURN = 20  # executions
NEVER = 1 << 60
DEFAULT = (
    "W20:wired", "W21:vptmapped", "W32:nested", "W39:nested", "W02:shadow", "W18:shadow",
    "W09:nested", "W43:pv_entry", "W29:bloom", "W01:pv_entry",
)  # fmt: skip


class Timed:
    """A search of a test, taken `TURN` executions at a time."""

    def __init__(self, name: str, policy: str, often: int) -> None:
        window, _, variant = name.partition("+")
        litmus = load_litmus(window, variant)
        self.often = often
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.executions = 0
        self.oracle = 0.0
        program = Program(decide.Test(litmus, policy), {})
        self.run = Run(program, litmus.file.litmus.max_steps, stop_on_failure=False)
        self.strategy = strategy_named("dpor", 0, program.numbers)
        self.strategy.extend = self.timed("steps", self.strategy.extend)
        self.strategy.reverse_races = self.timed("reduction", self.strategy.reverse_races)

    def timed(self, phase: str, inner: Any) -> Any:
        def outer(*args: Any) -> None:
            began, oracle = process_time(), self.oracle
            inner(*args)
            self.spent[phase] += process_time() - began - (self.oracle - oracle)

        return outer

    def go_on(self) -> None:
        decide.OFTEN = self.often  # type: ignore[misc]
        listen = Oracle.__call__

        def heard(oracle: Any, name: str, /, *args: Any) -> None:
            began = process_time()
            try:
                listen(oracle, name, *args)
            finally:
                self.oracle += process_time() - began

        Oracle.__call__ = heard  # type: ignore[method-assign]
        try:
            for _ in range(TURN):
                self.execute()
        finally:
            Oracle.__call__ = listen  # type: ignore[method-assign]

    def execute(self) -> None:
        run, strategy, spent = self.run, self.strategy, self.spent
        if not strategy.start():
            strategy.restart()  # the same again
            strategy.start()
        began, before = process_time(), self.oracle
        run.begin()
        spent["set-up"] += process_time() - began - (self.oracle - before)
        inner = spent["steps"] + spent["reduction"]
        began, oracle = process_time(), self.oracle
        strategy.conduct(run)
        inner = spent["steps"] + spent["reduction"] - inner
        spent["prefix"] += process_time() - began - inner - (self.oracle - oracle)
        began = process_time()
        run.finish()
        spent["end"] += process_time() - began
        spent["oracle"] += self.oracle - before
        if strategy.stale:
            strategy.restart()
        self.executions += 1


def compare(name: str, policy: str, seconds: float) -> None:
    made, back = Timed(name, policy, NEVER), Timed(name, policy, decide.OFTEN)
    began = process_time()
    while process_time() < began + seconds:
        made.go_on()
        back.go_on()
    for label, timed in (("made", made), ("put back", back)):
        n = timed.executions
        whole = sum(timed.spent.values()) / n
        phases = "".join(f"{1e6 * timed.spent[phase] / n:9.0f}" for phase in PHASES)
        print(f"{name + ':' + policy:18} {label:9}{n:6} {1 / whole:7.0f}/s{phases}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tests", nargs="*", default=DEFAULT, metavar="WINDOW:POLICY")
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    gc.set_threshold(50_000)
    print(f"{'':34} {'':9}" + "".join(f"{phase:>9}" for phase in PHASES))
    for test in args.tests:
        name, _, policy = test.rpartition(":")
        compare(name, policy, args.seconds)


if __name__ == "__main__":
    main()
