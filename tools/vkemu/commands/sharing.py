"""Where the work of a command is done: --jobs, --on, --checkpoint, and the line that says how far
it is. The same for all commands whose work is many calls (`vkemu.workers.calls`) or a search."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from vkemu.commands.arguments import OWN_POLICIES, clipped, jobs, path
from vkemu.verdict import Interrupted, UsageError
from vkemu.workers.answers import Answers
from vkemu.workers.calls import answered
from vkemu.workers.job import Workers, WorkersError
from vkemu.workers.processes import Here, Processes

PATIENCE_SECONDS: Final = 2.0  # before anything is said of work under way


def add_arguments(parser: argparse.ArgumentParser, default: int = 1) -> None:
    parser.add_argument(
        "--jobs", type=jobs, default=default, metavar="N",
        help=f"processes of this machine (default: {default})",
    )  # fmt: skip
    parser.add_argument(
        "--on", type=cluster, metavar="WHERE",
        help="the workers of a Dask cluster, in place of --jobs: dask://HOST:PORT, dask-local[:N]",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=path, metavar="FILE", help="save and resume here")


def cluster(text: str) -> str:
    """`dask://HOST:PORT`, or `dask-local` with or without a number."""
    remote = re.fullmatch(r"dask://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})", text)
    local = re.fullmatch(r"dask-local(:[0-9]{1,5})?", text)
    if remote is not None and 0 < int(remote[2]) < 1 << 16:
        return text
    if local is not None:
        if local[1]:
            jobs(local[1][1:])
        return text
    raise argparse.ArgumentTypeError(
        f"{clipped(text)}, expected dask://HOST:PORT or dask-local[:N]"
    )


def check_own(args: argparse.Namespace) -> None:
    if getattr(args, "policy", None) in OWN_POLICIES and (args.on or args.jobs > 1):
        raise UsageError(
            "--jobs, --on: not with --policy FILE.py, which only this process knows, expected "
            "--jobs 1"
        )


@contextmanager
def workers_of(args: argparse.Namespace, preload: Sequence[str] = ()) -> Iterator[Workers]:
    """Those the options ask for; what goes wrong with them is one line."""
    check_own(args)
    try:
        if args.on:
            from vkemu.workers.cluster import connected

            with connected(args.on, preload) as there:
                yield there
        else:
            workers: Workers = Here() if args.jobs == 1 else Processes(args.jobs, preload)
            try:
                yield workers
            finally:
                workers.close()
    except WorkersError as error:
        option = "--on " if args.on and str(error).startswith(args.on) else ""
        raise UsageError(f"{option}{error}") from None


def each(
    args: argparse.Namespace,
    what: str,
    function: Callable[..., Any],
    questions: Sequence[tuple[Any, ...]],
    kind: Any,
    *,
    first: Sequence[int] = (),
    asked: Any = None,
    preload: Sequence[str] = (),
    quiet: bool = False,
) -> Generator[Any, None, None]:
    """The answers of `function`, in order, each of type `kind`; done where the options say. `asked`
    says which questions these are, when there are too many to go through for that."""
    with Line(what, enabled=not quiet) as line, workers_of(args, preload) as workers:
        known = None
        if args.checkpoint is not None:
            known = Answers(args.checkpoint, what, questions if asked is None else asked, kind)
        try:
            yield from answered(
                function, questions, workers, first=first, known=known,
                tell=lambda done, count: line.counted(done, len(questions), count),
            )  # fmt: skip
        except KeyboardInterrupt:
            raise Interrupted(f"{what}: {line.done:,} of {len(questions):,} are done") from None


class Line:
    """How far it is: on a terminal, once it has taken two seconds."""

    def __init__(self, what: str, *, enabled: bool = True) -> None:
        self.what = what
        self.began = time.monotonic()
        self.done = 0
        self._first: int | None = None  # what was done when it began
        self._enabled = enabled and sys.stderr is not None and sys.stderr.isatty()
        self._status: Any = None

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def counted(self, done: int, total: int, workers: int) -> None:
        self.done = done
        if self._first is None:
            self._first = done
        self.say(of_many(done, total, done - self._first, time.monotonic() - self.began, workers))

    def say(self, text: str) -> None:
        if not self._enabled or time.monotonic() - self.began < PATIENCE_SECONDS:
            return
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        self._status.update(f"{self.what}: {text}".replace("[", r"\["))  # rich's markup


def of_many(done: int, total: int, since: int, seconds: float, workers: int) -> str:
    """`12 of 300, 4.1/s, 1 min left, 2 workers`; `since` of them are done in these seconds."""
    text = f"{done:,} of {total:,}"
    rate = since / seconds if seconds > 0 else 0.0
    if rate:
        text += f", {rate:,.1f}/s, {duration((total - done) / rate)} left"
    return f"{text}, {workers_text(workers)}"


def workers_text(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    minute = 60
    if seconds < 2 * minute:
        return f"{seconds:.0f} s"
    if seconds < 2 * minute * minute:
        return f"{seconds / minute:.0f} min"
    return f"{seconds / minute / minute:.0f} h"
