"""One cell of the matrix: does this test, on this policy, break what its window breaks?"""

from __future__ import annotations

import time
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from vkprotocol.effects import Body, Thread

from vkemu.exploration.result import Result
from vkemu.litmus.decide import decide
from vkemu.litmus.file import Litmus, load_litmus
from vkemu.litmus.token import LitmusToken, identity
from vkhost.config import HostConfig
from vkhost.kernel import Kernel
from vkhost.rmap import tree_of

Verdict: TypeAlias = Literal["fail", "pass", "bounded", "n/a"]

# Where the reduction's budget runs out, what is searched instead, and how that reads.
FALLBACKS = (
    ("bounded:2", None, "every interleaving with at most 2 preemptions"),
    ("pos", 100, "100 random ones (pos)"),
)


# W32 on `nested`, the longest of the tests themselves, takes 14 on a machine of 2026.
MAX_SECONDS = 40.0


class Question(NamedTuple):
    """What a worker is asked. `test` is the name of a shipped litmus test."""

    window: str
    test: str
    variant: str
    policy: str
    strategy: str = "dpor"
    max_seconds: float = MAX_SECONDS
    tree: str = ""  # "": the policy's own


class Cell(msgspec.Struct, frozen=True):
    """The answer. `reason`: what broke, the bound of the search, or why there is no question."""

    window: str
    test: str
    variant: str
    policy: str
    verdict: Verdict
    executions: int = 0
    exhausted: bool = False
    token: str = ""
    reason: str = ""
    seconds: float = 0.0
    tree: str = ""  # the one it was decided on

    @property
    def row(self) -> tuple[str, str]:
        return self.window, self.variant

    @property
    def name(self) -> str:
        """W01+interlock-off"""
        return f"{self.window}+{self.variant}" if self.variant else self.window


def answer(question: Question) -> Cell:
    """Decide it: `fail` with a shrunk witness, `pass` by exhaustion, else `bounded`."""
    start = time.monotonic()
    cell = _decide(question)
    return msgspec.structs.replace(cell, seconds=round(time.monotonic() - start, 2))


def _decide(question: Question) -> Cell:
    litmus = load_litmus(question.test, question.variant, question.tree)
    reason = not_applicable(litmus, question.policy)
    if reason:
        return _cell(question, litmus, "n/a", reason=reason)
    budget: dict[str, float] = {"max_seconds": question.max_seconds}
    decision = decide(litmus, question.policy, strategy=question.strategy, **budget)
    result = decision.result
    if decision.verdict == "fail" or result.exhausted:
        return _decided(question, litmus, decision.verdict == "fail", result, result.executions)
    executions = result.executions
    tried = [f"{result.executions:,} of the interleavings that differ"]
    for strategy, limit, text in FALLBACKS if question.strategy == "dpor" else ():
        more: dict[str, float | int | None] = {"max_executions": limit}
        if limit is None:
            more["max_seconds"] = 4 * question.max_seconds
        decision = decide(litmus, question.policy, strategy=strategy, **more)
        executions += decision.result.executions
        if decision.verdict == "fail":
            return _decided(question, litmus, True, decision.result, executions)
        # `bounded` leaves interleavings out by its nature, so it never says exhausted.
        through = limit is not None or decision.result.seconds < 4 * question.max_seconds
        tried.append(text if through else f"{decision.result.executions:,} of {text}")
    bound = f"no failure in {question.max_seconds:g} s of {question.strategy}: {'; '.join(tried)}"
    return _cell(question, litmus, "bounded", executions, reason=bound)


def _decided(
    question: Question, litmus: Litmus, failed: bool, result: Result, executions: int
) -> Cell:
    if not failed:
        return _cell(question, litmus, "pass", executions, exhausted=True)
    failure = result.failure
    token = reason = ""
    if failure is not None:
        token = str(
            LitmusToken(
                question.test,
                question.policy,
                question.variant,
                identity(litmus),
                failure.token,
                question.tree,
            )
        )
        reason = failure.message.splitlines()[0]
    else:
        reason = "a required outcome is never reached"
    return _cell(question, litmus, "fail", executions, token=token, reason=reason)


def _cell(
    question: Question,
    litmus: Litmus,
    verdict: Verdict,
    executions: int = 0,
    *,
    exhausted: bool = False,
    token: str = "",
    reason: str = "",
) -> Cell:
    window, test, variant, policy = question[:4]
    return Cell(
        window, test, variant, policy, verdict, executions, exhausted, token, reason,
        tree=litmus.file.host.tree or tree_of(policy),
    )  # fmt: skip


def not_applicable(litmus: Litmus, policy: str) -> str:
    if not boots_vkernels(policy):
        return "mmap refuses MAP_VPAGETABLE: no vkernel boots, there is nothing to race with"
    return litmus.not_applicable(policy)


def boots_vkernels(policy: str) -> bool:
    kernel = Kernel(HostConfig(pages=16), policy, _no_threads)
    return kernel.rmap.mmap_vpagetable_allowed()


def _no_threads(name: str, coro: Body, *, daemon: bool = False) -> Thread:
    raise AssertionError("a kernel that is only asked spawns nobody")
