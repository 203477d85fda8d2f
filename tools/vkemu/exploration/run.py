"""One execution of a program: built, taken through a schedule, judged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, Final, NamedTuple, TypeAlias

from vkprotocol.effects import LOOK, LockOrderError, Shared, key_text
from vkprotocol.guarded import Unguarded

from vkemu.executors.announced import may_go_on, shown
from vkemu.executors.controlled import StepBound
from vkemu.executors.deadline import STRUCK
from vkemu.executors.deadlock import Deadlock
from vkemu.exploration.checking.access_order import DataRace
from vkemu.exploration.forgotten import FORGOTTEN, refused
from vkemu.exploration.inside import is_ours
from vkemu.exploration.looks import GuardError, awake
from vkemu.exploration.program import Predicate, Program, never_runs

BOUND: Final = StepBound.__name__  # the kind of a failure to end
TOO_DEEP: Final = "maximum recursion depth exceeded"


class PredicateError(AssertionError):
    """A predicate of the program did not hold."""


# What a search itself finds, in any program.
FOUND: Final = (
    PredicateError, Deadlock, StepBound, LockOrderError, Unguarded, DataRace, GuardError,
)  # fmt: skip


class Fault(NamedTuple):
    """Something that was wrong with an execution."""

    error: BaseException
    blame: str  # the thread that failed, or ""
    at: int  # after so many steps

    @property
    def kind(self) -> str:
        return kind_of(self.error)

    @property
    def message(self) -> str:
        return message_of(self.error, self.blame)

    @property
    def what(self) -> tuple[str, str]:
        return self.kind, self.message


Wanted: TypeAlias = Callable[[Fault], bool]


class Run:
    """One execution under a strategy: its schedule, and how it ended. Made once, begun often.

    `faults` has each that can be told from the others, once. `error` is the one that counts: the
    first, and with `stop_on_failure` it ends the execution. With `wanted` it is the first of those,
    and ends it.
    """

    __slots__ = (
        "blame", "blocked", "bound_fails", "cut", "earned", "error", "execution", "failed_at",
        "faults", "judged", "looked", "max_steps", "program", "repeated", "schedule",
        "stop_on_failure", "wanted", "watched",
    )  # fmt: skip

    def __init__(
        self,
        program: Program,
        max_steps: int,
        *,
        stop_on_failure: bool = True,
        bound_fails: bool = False,
        wanted: Wanted | None = None,
    ) -> None:
        self.program = program
        self.looked = program.looked
        self.judged = program.judged
        # What a program of ours may end in; None: whatever its threads raise is its own.
        self.earned: tuple[type[BaseException], ...] | None = getattr(program.build, "earned", None)
        self.wanted = wanted
        self.max_steps = max_steps
        self.bound_fails = bound_fails  # an execution that reaches max_steps is a failure
        self.stop_on_failure = stop_on_failure
        self.execution = program.execution
        self.schedule: list[int] = []
        self.error: BaseException | None = None
        self.blame = ""  # the thread that failed
        self.failed_at = 0  # after so many steps
        self.faults: list[Fault] = []
        self.blocked = False
        self.cut = False
        self.repeated = False  # had before: not to be counted
        self.watched: list[Predicate] = []

    def begin(self, noting: bool = False) -> None:
        """Build the program anew. Then `settle`, perhaps after a replay."""
        if FORGOTTEN:  # of threads that were ended in the middle
            FORGOTTEN.clear()
        if STRUCK:
            STRUCK.clear()
        self.schedule = []
        self.error = None
        self.blame = ""
        if self.faults:
            self.faults = []
        self.blocked = False
        self.cut = False
        self.repeated = False
        LOOK[0] = self.looked
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
        """Note the error of the thread that failed. True when the execution stops here.

        Of the threads, where one has spawned what failed at once. One that has not failed has only
        said what must always hold, from now on.
        """
        execution = self.execution
        failed = execution.failed
        assert failed is not None
        execution.failed = None
        if failed.error is None:
            return False
        stops = self.note(Fault(failed.error, failed.name, len(self.schedule)))
        if execution.failed_too:
            for thread in execution.failed_too:
                assert thread.error is not None
                stops |= self.note(Fault(thread.error, thread.name, len(self.schedule)))
            execution.failed_too = ()
        return stops

    def note(self, fault: Fault) -> bool:
        """Something is wrong. True when the execution stops here."""
        if not self.faults or fault.what not in [known.what for known in self.faults]:
            self.faults.append(fault)
        if self.error is None and (self.wanted is None or self.wanted(fault)):
            self.choose(fault)
            return self.stop_on_failure or self.wanted is not None
        return False

    def choose(self, fault: Fault) -> None:
        self.error, self.blame, self.failed_at = fault

    def watch(self) -> bool:
        """Check what must always hold. False when the execution stops here."""
        looking = LOOK[0]
        LOOK[0] = self.judged
        try:
            for predicate in self.watched:
                error = violation(predicate, "always")
                if error is not None and self.note(Fault(error, "", len(self.schedule))):
                    return False
        finally:
            LOOK[0] = looking
        return True

    def finish(self) -> BaseException | None:
        """What was wrong with this execution, now that it is over."""
        execution = self.execution
        LOOK[0] = None
        if STRUCK:
            raise STRUCK[-1]
        judged = self.cut or execution.alive or self.program.ends
        if judged and not self.faults and self.error is None and not self.blocked:
            self._end()
        if FORGOTTEN and not self.blame and not execution.late:
            found = refused()
            execution.close()
            raise found
        if execution.left:
            execution.close()
        if self.faults and self.earned is not None:
            for fault in self.faults:
                self.judge(fault)
        return self.error

    def judge(self, fault: Fault) -> None:
        """Raise what is no finding about the program: a bug of ours, or a wrong test."""
        assert self.earned is not None
        if not isinstance(fault.error, (*FOUND, *self.earned)):
            fault.error.add_note(
                f"in thread {fault.blame or '(none)'}, step {fault.at} of "
                f"{self.program.build!r}, schedule {self.schedule}"
            )
            raise fault.error

    def _end(self) -> None:
        """Of an execution that came to its end, or to the bound, without a fault."""
        steps = len(self.schedule)
        if self.cut:
            if self.bound_fails:
                error = StepBound(f"no end within {self.max_steps} steps")
                self.note(Fault(error, "", steps))
            return
        if self.execution.alive:
            stuck = self.stuck()
            if stuck is not None:
                self.note(Fault(stuck, "", steps))
                return
        for predicate in self.program.ends:
            wrong = violation(predicate, "at_end")
            if wrong is not None:
                self.note(Fault(wrong, "", steps))

    def stuck(self) -> AssertionError | TypeError | None:
        """A deadlock; or a thread whose guard has come to hold without anybody asking."""
        execution = self.execution
        for thread in execution.threads.values():
            effect = thread.pending
            if effect is None or thread.runnable or effect.guard is None:
                continue
            if may_go_on(effect, effect.obj.state):
                return awake(thread)
        return execution.deadlock()

    def message(self) -> str:
        """The failure in one line, the same in every execution that fails this way."""
        assert self.error is not None
        return message_of(self.error, self.blame)


def message_of(error: BaseException, blame: str) -> str:
    try:
        text = str(error).strip()
    except Exception:  # its own, while it says what it is
        text = ""
    if not isinstance(error, (PredicateError, Deadlock, StepBound)):
        kind = type(error).__name__
        if isinstance(error, RecursionError):  # it also says in which C function
            text = TOO_DEEP
        elif text and not blame and not isinstance(error, AssertionError):
            place = line_of(error, of_program=True).rpartition("/")[2]
            text += f" ({place})" if place else ""  # of a predicate: no thread tells where
        text = f"{kind}: {text}" if text else f"{kind}{_asserted(error)}"
    if blame:
        text = f"{blame}: {text}"
    return without_addresses(text.splitlines()[0])


def kind_of(error: BaseException) -> str:
    """Two failures of one kind are taken for the same."""
    if isinstance(error, Deadlock):
        return "deadlock"
    if isinstance(error, PredicateError):
        return str(error)
    name = type(error).__name__
    if isinstance(error, AssertionError):
        said = getattr(error, "kind", None)  # which check of the oracle
        if isinstance(said, str):
            return f"{name} {said}"
    if isinstance(error, AssertionError):
        return f"{name} {line_of(error)}"
    return name


def line_of(error: BaseException, *, of_program: bool = False) -> str:
    """Where it was raised; or the last line on the way there that is none of ours."""
    place = ""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if not (of_program and is_ours(frame.f_globals)):
            place = f"{frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


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
        return PredicateError(f"{when} does not hold: {named(predicate)}")
    line = source_line(code.co_filename, code.co_firstlineno)
    where = f"{code.co_filename.rpartition('/')[2]}:{code.co_firstlineno}"
    return PredicateError(f"does not hold: {line or when} ({where})")


def named(predicate: Any) -> str:
    """The same in every execution, which a repr with an address is not."""
    if isinstance(predicate, partial):
        places = [*map(_shown, predicate.args)]
        places += [f"{name}={_shown(value)}" for name, value in predicate.keywords.items()]
        return f"{named(predicate.func)}({', '.join(places)})"
    if isinstance(predicate, MethodType):
        return f"{type(predicate.__self__).__name__}.{predicate.__name__}"
    code = getattr(predicate, "__code__", None)
    if code is not None:
        return f"{code.co_name} ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})"
    return getattr(predicate, "__qualname__", None) or _shown(predicate)


def _shown(value: Any) -> str:
    if isinstance(value, Shared):
        return key_text(value.key)
    text = shown(value)
    return type(value).__name__ if " at 0x" in text else text
