"""Run folders: `runs/<name>-<n>/`, and `runs/latest`, which always points to a finished one.

A run is written into a hidden folder and renamed when it is complete, so nobody ever sees half of
one, and two vkemu at a time do not meet.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import orjson

from vkemu.record.zstd import SUFFIX, open_zstd
from vkemu.verdict import UsageError

EVENTS = "events.ndjson"
SUMMARY = "summary.json"
FAILURE = "failure.txt"
REPORT = "report.html"
SCENARIO = "scenario.json"
LATEST = "latest"
DROPPED = "log.dropped"  # the event that says what is not in a live log


class RunFolder:
    """A run being written. `path` is hidden until `publish`, final after it."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self._hidden = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        self.path = self._hidden

    def events_path(self, *, zstd: bool) -> Path:
        return self.path / (EVENTS + SUFFIX if zstd else EVENTS)

    @contextlib.contextmanager
    def events(self, *, zstd: bool = False) -> Iterator[IO[bytes]]:
        """The log, to be written."""
        path = self.events_path(zstd=zstd)
        buffer = 1 << 17  # bytes of events before a write
        if not zstd:
            with path.open("wb", buffer) as out:
                yield out
            return
        packed = open_zstd(path, "wb", "--zstd")
        # A call of the compressor a line costs more than the compression.
        with packed, io.BufferedWriter(packed, buffer) as out:
            yield out

    def write_json(self, name: str, content: object) -> None:
        (self.path / name).write_bytes(as_json(content))

    def write_text(self, name: str, text: str) -> None:
        write_text(self.path / name, text)

    def publish(self) -> Path:
        """Give the folder the next free number, then let `latest` point to it."""
        self.path.chmod(0o755)
        number = 1 + max(numbers(self.root, self.name), default=0)
        while True:
            final = self.root / f"{self.name}-{number}"
            try:
                # Fails when the target exists: a published folder is never empty.
                self.path.rename(final)
                break
            except OSError:
                if not final.exists():
                    raise
                number += 1
        self.path = final
        point_latest(self.root, final.name)
        return final

    def discard(self) -> None:
        """Remove what is not complete; never a run that has its name."""
        shutil.rmtree(self._hidden, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Whatever bytes of a file name are in the text."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def as_json(content: object) -> bytes:
    """As the files of a run folder have it."""
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@contextlib.contextmanager
def new_run(root: Path, name: str) -> Iterator[RunFolder]:
    """A folder to fill; published at the end, removed when an exception passes."""
    latest = root / LATEST
    try:
        root.mkdir(parents=True, exist_ok=True)
        if latest.exists() and not latest.is_symlink():
            raise UsageError(f"{latest}: exists and is no link, expected a link to a run")
        folder = RunFolder(root, name)
    except OSError as error:
        message = f"{root}: {error.strerror}, expected a folder for runs"
        raise UsageError(message) from None
    try:
        yield folder
        folder.publish()
    except BaseException:
        folder.discard()
        raise


def is_hidden(folder: Path) -> bool:
    """Whether its run goes on, or was killed."""
    return folder.name.startswith(".")


def numbers(root: Path, name: str) -> list[int]:
    pattern = re.compile(rf"{re.escape(name)}-(\d+)")
    found = (pattern.fullmatch(entry.name) for entry in root.iterdir())
    return [int(match[1]) for match in found if match]


def point_latest(root: Path, target: str) -> None:
    """Replace the link in one step: a reader finds the old or the new run, never none."""
    link = root / f".{LATEST}-{target}"  # ours alone, as the target is
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.replace(root / LATEST)
    except OSError as error:
        link.unlink(missing_ok=True)
        what = f"{error.strerror}, expected a link to a run"
        raise UsageError(f"{root / LATEST}: {what}; the run is {root / target}") from None
