"""One execution of a program: built, taken through a schedule, judged."""

from __future__ import annotations

from typing import Final

from vkprotocol.effects import LockOrderError
from vkprotocol.guarded import Unguarded

from vkemu.executors.controlled import Deadlock, StepBound
from vkemu.exploration.checking.access_order import DataRace
from vkemu.exploration.program import Predicate, Program, never_runs

BOUND: Final = StepBound.__name__  # the kind of a failure to end
TOO_DEEP: Final = "maximum recursion depth exceeded"


class PredicateError(AssertionError):
    """A predicate of the program did not hold."""


# What a search itself finds, in any program.
FOUND: Final = (PredicateError, Deadlock, StepBound, LockOrderError, Unguarded, DataRace)


class Run:
    """One execution under a strategy: its schedule, and how it ended. Made once, begun often."""

    __slots__ = (
        "blame", "blocked", "bound_fails", "cut", "earned", "error", "execution", "failed_at",
        "max_steps", "program", "repeated", "schedule", "stop_on_failure", "watched",
    )  # fmt: skip

    def __init__(
        self,
        program: Program,
        max_steps: int,
        *,
        stop_on_failure: bool = True,
        bound_fails: bool = False,
    ) -> None:
        self.program = program
        # What a program of ours may end in; None: whatever its threads raise is its own.
        self.earned: tuple[type[BaseException], ...] | None = getattr(program.build, "earned", None)
        self.max_steps = max_steps
        self.bound_fails = bound_fails  # an execution that reaches max_steps is a failure
        self.stop_on_failure = stop_on_failure
        self.execution = program.execution
        self.schedule: list[int] = []
        self.error: BaseException | None = None
        self.blame = ""  # the thread that failed
        self.failed_at = 0  # after so many steps
        self.blocked = False
        self.cut = False
        self.repeated = False  # had before: not to be counted
        self.watched: list[Predicate] = []

    def begin(self, noting: bool = False) -> None:
        """Build the program anew. Then `settle`, perhaps after a replay."""
        self.schedule = []
        self.error = None
        self.blame = ""
        self.blocked = False
        self.cut = False
        self.repeated = False
        self.execution = self.program.begin(noting)
        self.watched = self.program.invariants

    def settle(self) -> bool:
        """Find out who can run. False when the execution is over already."""
        execution = self.execution
        execution.settle()
        if execution.failed is not None and self.thread_failed():
            return False
        return not self.watched or self.watch()

    def thread_failed(self) -> bool:
        """Note the error of the thread that failed. True when the execution stops here."""
        execution = self.execution
        failed = execution.failed
        assert failed is not None
        if self.error is None:
            self.error = failed.error
            self.blame = failed.name
            self.failed_at = len(self.schedule)
        execution.failed = None
        return self.stop_on_failure

    def watch(self) -> bool:
        """Check what must always hold. False when the execution stops here."""
        for predicate in self.watched:
            error = violation(predicate, "always")
            if error is not None:
                if self.error is None:
                    self.error = error
                    self.failed_at = len(self.schedule)
                return not self.stop_on_failure
        return True

    def finish(self) -> BaseException | None:
        """What was wrong with this execution, now that it is over."""
        execution = self.execution
        if self.error is None and self.cut and self.bound_fails:
            self.error = StepBound(f"no end within {self.max_steps} steps")
        if self.error is None and not self.blocked and not self.cut:
            if execution.alive:
                self.error = execution.deadlock()
            if self.error is None:
                for predicate in self.program.ends:
                    self.error = violation(predicate, "at_end")
                    if self.error is not None:
                        break
        if execution.left:
            execution.close()
        if self.error is not None and self.earned is not None:
            self.judge(self.error)
        return self.error

    def judge(self, error: BaseException) -> None:
        """Raise what is no finding about the program: a bug of ours, or a wrong test."""
        assert self.earned is not None
        if not isinstance(error, (*FOUND, *self.earned)):
            error.add_note(
                f"in thread {self.blame or '(none)'}, step {self.failed_at} of "
                f"{self.program.build!r}, schedule {self.schedule}"
            )
            raise error

    def message(self) -> str:
        """The failure in one line, the same in every execution that fails this way."""
        error = self.error
        assert error is not None
        try:
            text = str(error).strip()
        except Exception:  # its own, while it says what it is
            text = ""
        if not isinstance(error, (PredicateError, Deadlock, StepBound)):
            kind = type(error).__name__
            if isinstance(error, RecursionError):  # it also says in which C function
                text = TOO_DEEP
            text = f"{kind}: {text}" if text else f"{kind}{_asserted(error)}"
        if self.blame:
            text = f"{self.blame}: {text}"
        return without_addresses(text.splitlines()[0])


def without_addresses(text: str) -> str:
    """What is left of ` at 0x7f...` says the same in every process."""
    import re

    return re.sub(r" at 0x[0-9a-f]+", "", text)


def source_line(file: str, line: int) -> str:
    """A line of source, without the comment at its end."""
    import linecache
    from tokenize import COMMENT, TokenError, generate_tokens

    text = linecache.getline(file, line).strip()
    try:
        for token in generate_tokens(iter([text]).__next__):
            if token.type == COMMENT:
                return text[: token.start[1]].rstrip()
    except (TokenError, SyntaxError):  # what goes on in the next line
        pass
    return text


def _asserted(error: BaseException) -> str:
    """The source of a bare assert."""
    traceback = error.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    file = traceback.tb_frame.f_code.co_filename
    line = source_line(file, traceback.tb_lineno)
    where = f"{file.rpartition('/')[2]}:{traceback.tb_lineno}"
    return f": {line} ({where})" if line else f" ({where})"


def violation(predicate: Predicate, when: str) -> BaseException | None:
    """The error of a predicate that does not hold; None and True are what holding looks like."""
    try:
        held = predicate()
        if held is None or held is True:
            return None
        holds = bool(held)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    if holds:
        mistake = never_runs(when, predicate, held)
        if mistake is not None:
            raise mistake
        return None
    code = getattr(predicate, "__code__", None)
    if code is None:
        return PredicateError(f"{when} does not hold: {predicate!r}")
    line = source_line(code.co_filename, code.co_firstlineno)
    where = f"{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"
    return PredicateError(f"does not hold: {line or when} ({where})")
