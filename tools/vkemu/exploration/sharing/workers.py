"""Where jobs are done. Anything with these three methods will do, a cluster among them."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Protocol

from vkemu.exploration.failure.origin import Build, program_of, reference
from vkemu.exploration.result import ExplorationError

if TYPE_CHECKING:
    from vkemu.exploration.sharing.jobs import Job, Report, Task


class Workers(Protocol):
    def submit(self, job: Job) -> None:
        """Have a job done, now or later."""

    def results(self) -> list[Report]:
        """At least one report, waiting for it. Only while a job is under way."""

    def close(self) -> None:
        """Drop what is under way."""


class Here:
    """In this process, one job when results are asked for."""

    def __init__(self, build: Build, task: Task) -> None:
        from vkemu.exploration.sharing.jobs import Hand

        self._hand = Hand(build, task)
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def results(self) -> list[Report]:
        return [self._hand.perform(self._jobs.popleft())]

    def close(self) -> None:
        self._jobs.clear()


class Processes:
    """In `count` processes of this machine, started by a fork server."""

    def __init__(self, build: Build, task: Task, count: int) -> None:
        referred = reference(build)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["vkemu.exploration.sharing.jobs", "vkemu.exploration.strategies.dpor"]
        )
        self._jobs: deque[Job] = deque()
        self._idle: list[Connection] = []
        self._busy: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=labour, args=(theirs, referred, task), daemon=True)
            process.start()
            theirs.close()
            self._idle.append(ours)
            self._processes.append(process)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._jobs and self._idle:
            connection = self._idle.pop()
            connection.send(self._jobs.popleft())
            self._busy.append(connection)

    def results(self) -> list[Report]:
        reports = []
        for connection in wait(self._busy):
            assert isinstance(connection, Connection)
            try:
                reports.append(connection.recv())
            except EOFError:
                raise ExplorationError(
                    "jobs: a worker process died; a script that calls explore(jobs=...) needs "
                    "`if __name__ == '__main__':` around it"
                ) from None
            self._busy.remove(connection)
            self._idle.append(connection)
        self._hand_out()
        return reports

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        self._busy.clear()
        self._processes.clear()


def labour(connection: Connection, referred: bytes, task: Task) -> None:
    """The life of a worker process."""
    from vkemu.exploration.checking.guards import guards
    from vkemu.exploration.sharing.jobs import Hand, Report, portable

    # Ctrl-C is the coordinator's to handle; it ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hand: Hand | None = None
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            if hand is None:
                build = program_of(referred)
                if task.check:
                    enforced = guards(build)  # for as long as the process lives
                    enforced.__enter__()
                hand = Hand(build, task)
        except Exception as error:
            report = Report(job.number, error=portable(error))
        else:
            report = hand.perform(job)
        connection.send(report)
