"""Jobs done on this machine: in this process, or in others."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from vkemu.workers.job import Job, Kept, WorkersError, performed


class Here:
    """In this process, one job when results are asked for."""

    def __init__(self, kept: Mapping[Any, Any] | None = None) -> None:
        self._kept = Kept(kept)
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def results(self) -> list[Any]:
        return [self._jobs.popleft().perform(self._kept)]

    def close(self) -> None:
        self._jobs.clear()


@contextmanager
def held_back() -> Iterator[None]:
    """Ctrl-C is ours to handle: what is started in the body never hears of it, and we do, but when
    it is started."""
    resource_tracker.ensure_running()  # to start it would let the signal through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Processes:
    """In `count` processes, started by a fork server that has imported `preload`."""

    def __init__(self, count: int, preload: Iterable[str] = ()) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["vkemu.workers.processes", *preload])
        with held_back():
            forkserver.ensure_running()
        self.count = count
        self._jobs: deque[tuple[int, bytes]] = deque()
        self._idle: list[Connection] = []
        self._busy: list[Connection] = []
        self._recalled: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=labour, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._idle.append(ours)
            self._processes.append(process)

    def submit(self, job: Job) -> None:
        self._jobs.append((job.number, pickle.dumps(job)))
        self._hand_out()

    def _hand_out(self) -> None:
        while self._jobs and self._idle:
            connection = self._idle.pop()
            try:
                connection.send(self._jobs.popleft())
            except BrokenPipeError:
                raise _died() from None
            self._busy.append(connection)

    def results(self) -> list[Any]:
        reports = []
        for connection in wait(self._busy):
            assert isinstance(connection, Connection)
            try:
                reports.append(pickle.loads(connection.recv_bytes()))
            except (EOFError, ConnectionResetError):
                raise _died() from None
            self._busy.remove(connection)
            self._recalled = [other for other in self._recalled if other is not connection]
            self._idle.append(connection)
        self._hand_out()
        return reports

    def recall(self) -> None:
        for connection in self._busy:
            if connection not in self._recalled:
                self._recalled.append(connection)
                with suppress(BrokenPipeError):  # `results` will say so
                    connection.send(None)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._jobs.clear()
        self._idle.clear()
        self._busy.clear()
        self._processes.clear()


def _died() -> WorkersError:
    return WorkersError(
        "jobs: a worker process died; a script that calls explore(jobs=...) needs "
        "`if __name__ == '__main__':` around it"
    )


def labour(connection: Connection) -> None:
    """The life of a worker process."""
    # Ctrl-C is the coordinator's to handle; it ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept = Kept(recalled=connection.poll)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        if job is not None:  # else a recall of what is done
            number, packed = job
            try:
                connection.send_bytes(performed(number, packed, kept))
            except BrokenPipeError:  # who asked is gone
                return
