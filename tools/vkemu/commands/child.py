"""A `vkemu` command as a child process: what it says as it runs, and what became of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
from anyio.abc import ByteReceiveStream


class Child:
    """`status` is None until it has ended; `signal` is what killed it, or 0."""

    def __init__(self, name: str, words: list[str], tell: Callable[[str], None]) -> None:
        self.name = name
        self.words = words
        self.heard: Callable[[str], None] = lambda line: None
        self.status: int | None = None
        self.said: dict[str, Any] | None = None  # its --json
        self.last = ""  # line of its standard error
        self._tell = tell
        self._process: anyio.abc.Process | None = None

    @property
    def killed_by(self) -> int:
        return max(0, -(self.status or 0))

    @property
    def ending(self) -> str:
        """Why it did not end well, in a line."""
        if self.status is None:
            return "was never started"
        if self.killed_by:
            return f"killed by {signal.Signals(self.killed_by).name}"
        said = self.said or {}
        wrong = said.get("ending") or said.get("failure") or (said.get("failed") or [""])[0]
        return str(wrong or self.last or f"exit status {self.status}").splitlines()[0]

    async def run(self) -> None:
        """Start it and see it to its end. It has a session of its own: a Ctrl-C is not for it."""
        command = [sys.executable, "-m", "vkemu", *self.words]
        async with await anyio.open_process(
            command, stdin=subprocess.DEVNULL, start_new_session=True
        ) as process:
            self._process = process
            self._tell(f"{self.name}: process {process.pid}")
            assert process.stdout is not None
            assert process.stderr is not None
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, process.stderr)
                output = b"".join([chunk async for chunk in process.stdout])
            await process.wait()
            self.status = process.returncode
        try:
            self.said = msgspec.json.decode(output, type=dict[str, Any])
        except msgspec.DecodeError:
            self.said = None

    async def _listen(self, stream: ByteReceiveStream) -> None:
        pending = b""
        line_bytes = 1 << 16  # of a line that nobody has ended yet
        async for chunk in stream:
            *found, pending = (pending + chunk).split(b"\n")
            if len(pending) > line_bytes:
                found, pending = [*found, pending], b""
            for raw in found:
                self.last = raw.decode(errors="backslashreplace")
                self._tell(f"{self.name}: {self.last.removeprefix(f'{self.name}: ')}")
                self.heard(self.last)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self.status is None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                pass

    def told(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "signal": signal.Signals(self.killed_by).name if self.killed_by else None,
            "ending": None if self.status == 0 else self.ending,
            "said": self.said,
        }
