"""A search that is saved and taken up again: what is left of it, and what it has counted.

The file is replaced whole, so that a crash leaves the one before. It is a digest, and a pickle that
may hold plain values and the few classes of this package named below, and nothing else.
"""

from __future__ import annotations

import pickle
import zlib
from hashlib import sha256
from io import BytesIO
from os import W_OK, access
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from vkprotocol.effects import key_text

from vkemu.exploration.program import program_for
from vkemu.exploration.result import ExplorationError
from vkemu.exploration.sharing.identity import identity_of

if TYPE_CHECKING:
    from vkemu.exploration.failure.origin import Build
    from vkemu.exploration.sharing.division import Division
    from vkemu.exploration.sharing.jobs import Task
    from vkemu.exploration.sharing.parallel import Coordinator

VERSION: Final = 9
ALLOWED: Final = {
    ("vkemu.exploration.own", "Own"),
    ("vkemu.exploration.reduction.footprint", "Learned"),
    ("vkemu.exploration.reduction.frontier", "Frontier"),
    ("vkemu.exploration.reduction.frontier", "Step"),
    ("vkemu.exploration.reduction.frontier", "Found"),
    ("vkemu.exploration.sharing.jobs", "Task"),
    ("vkemu.exploration.sharing.division", "Part"),
    ("vkemu.exploration.failure.witness", "Witness"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")
        return super().find_class(module, name)


class Checkpoint:
    """The file, and the search it belongs to."""

    def __init__(
        self, file: str, build: Build, task: Task, coordinator: Coordinator, division: Division
    ) -> None:
        self.file = Path(file)
        self.task = task
        self.beginning = beginning_of(build)
        self.coordinator = coordinator
        self.division = division
        self.saved_at = monotonic()

    def save(self, *, last: bool = False) -> None:
        every_seconds = 5.0
        if not last and monotonic() < self.saved_at + every_seconds:
            return
        self.saved_at = monotonic()
        coordinator = self.coordinator
        parts = [part for part, _ in coordinator.under_way.values()]
        for part in (*parts, *self.division.parts):
            while part is not None:
                part.settle(self.division.names)
                part = part.giver
        counts = ("executions", "blocked", "cut", "failures", "steps", "depth")
        state = {
            "version": VERSION,
            "task": self.task,
            "beginning": self.beginning,
            "parts": [*parts, *self.division.parts],
            "done": self.division.done,
            "options": coordinator.options,
            "witnesses": coordinator.witnesses,
            "endings": dict(coordinator.endings),
            "forms": coordinator.forms,
            "counts": {name: getattr(coordinator.result, name) for name in counts},
        }
        beside = self.file.with_name(self.file.name + ".new")
        try:
            beside.write_bytes(whole(pickle.dumps(state)))
            beside.replace(self.file)
        except OSError as error:
            raise self._unwritable(error.strerror) from None

    def load(self) -> None:
        """Take up the search where the file left it, when there is one."""
        if not access(self.file.parent, W_OK):
            raise self._unwritable(f"no folder to write in: {self.file.parent}")
        try:
            state = _Unpickler(BytesIO(content_of(self.file.read_bytes()))).load()
        except FileNotFoundError:
            return
        except OSError as error:
            why = error.strerror
            raise ExplorationError(f"checkpoint {self.file}: cannot be read: {why}") from None
        except Exception as error:
            why = f"no checkpoint, or damaged: {error}"
            raise ExplorationError(f"checkpoint {self.file}: cannot be read: {why}") from None
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise ExplorationError(f"checkpoint {self.file}: of another version")
        if state["beginning"] != self.beginning:
            raise ExplorationError(f"checkpoint {self.file}: the program is another one")
        if state["task"] != self.task:
            made, asked = state["task"]._asdict(), self.task._asdict()
            other = ", ".join(f"{n}={made[n]!r}" for n in made if made[n] != asked[n])
            raise ExplorationError(f"checkpoint {self.file}: made with {other}")
        self.division.parts.clear()
        self.division.parts.extend(state["parts"])
        self.division.done = state["done"]
        self.coordinator.options = state["options"]
        self.coordinator.witnesses = state["witnesses"]
        self.coordinator.endings.update(state["endings"])
        self.coordinator.forms = state["forms"]
        for name, count in state["counts"].items():
            setattr(self.coordinator.result, name, count)

    def _unwritable(self, why: str | None) -> ExplorationError:
        return ExplorationError(f"checkpoint {self.file}: cannot be written: {why}")


def whole(content: bytes) -> bytes:
    """With what shows that nothing of it was changed: a count that is another would not."""
    return sha256(content).digest() + content


def content_of(file: bytes) -> bytes:
    size = sha256().digest_size
    if whole(file[size:]) != file:
        raise ValueError("its digest is another, or it is of before there was one")
    return file[size:]


def beginning_of(build: Build) -> int:
    """A digest of what the threads of a program are about to do first, and of which it is."""
    program = program_for(build, {})
    execution = program.begin()
    execution.settle()
    text = identity_of(build) + "\n"
    text += "\n".join(
        f"{thread.name} {thread.pending.op} {key_text(thread.pending.obj.key)}"
        for thread in execution.threads.values()
        if thread.pending is not None
    )
    execution.close()
    return zlib.crc32(text.encode(errors="surrogatepass"))
