"""Jobs done in a process that does nothing else: without threads or an event loop of others."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from typing import BinaryIO

from vkemu.workers.job import Kept, WorkersError, performed


class Alone:
    """Such a process. It ends when we do: what it reads jobs from is closed then."""

    def __init__(self) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vkemu.workers.alone"],
            env={**os.environ, "PYTHONPATH": paths}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def perform(self, number: int, packed: bytes) -> bytes:
        jobs, reports = self._process.stdin, self._process.stdout
        assert jobs is not None
        assert reports is not None
        try:
            pickle.dump((number, packed), jobs)
            jobs.flush()
            report: bytes = pickle.load(reports)
        except (EOFError, BrokenPipeError):
            raise WorkersError("the process of an async program died") from None
        return report

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def labour(jobs: BinaryIO, reports: BinaryIO) -> None:
    kept = Kept()
    while True:
        try:
            number, packed = pickle.load(jobs)
        except EOFError:
            return
        pickle.dump(performed(number, packed, kept), reports)
        reports.flush()


if __name__ == "__main__":
    # Ctrl-C is the coordinator's to handle. What the program prints is no report.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        labour(sys.stdin.buffer, answers)
    except BrokenPipeError:  # who asked is gone
        os._exit(1)
