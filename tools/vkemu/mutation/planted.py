"""A module of the kernels as a mutant has it: compiled from another text as it is imported."""

from __future__ import annotations

import importlib.util
import json
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from io import StringIO
from pathlib import Path
from typing import Any, Final

import msgspec

import vkguest
import vkhost
from vkemu.verdict import UsageError

ROOT: Final = Path(vkhost.__file__).parent.parent
CHECK_SECONDS: Final = 20.0  # of CPU; what takes a second without a mistake has no end with it


def sources() -> list[Path]:
    """The modules of both kernels and the reverse maps, in the order of their names."""
    found = [p for package in (vkguest, vkhost) for p in Path(package.__path__[0]).rglob("*.py")]
    # What of them is not the kernel: programs, switches, and machine code by another's hand.
    left_out = ("mutants.py", "quirks.py", "config.py", "tree.py", "asm.py", "lockorder.py")
    return sorted(p for p in found if p.name not in left_out and p.parent.name != "workloads")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


class _Loader(SourceLoader):
    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str) -> bytes:
        return self.text.encode()

    def path_stats(self, path: str) -> Any:
        raise OSError  # nothing is cached


class _Finder(MetaPathFinder):
    def __init__(self, name: str, path: str, text: str) -> None:
        self.name = name
        self.loader = _Loader(path, text)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.loader.path, loader=self.loader
        )


def plant(path: Path, text: str) -> None:
    """From here on `path` is `text`, for all that is imported: what has been is forgotten."""
    for loaded in [n for n in sys.modules if n.partition(".")[0] in ("vkhost", "vkguest", "vkemu")]:
        del sys.modules[loaded]
    sys.meta_path.insert(0, _Finder(module_name(path), str(path), text))


class NoEnd(BaseException):
    """Of a check: code between two effects that goes round for ever."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """So much time of this process's CPU and no more; another's load makes no verdict."""

    def over(signum: int, frame: Any) -> None:
        raise NoEnd

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def notices(check: str, executions: int, seconds: float = CHECK_SECONDS) -> str:
    """What the check says against the kernels; empty when it has nothing to say. A run that ends
    without a mistake has to end with it."""
    try:
        with limited(seconds):
            from vkemu.mutation.trial import perform

            verdict, said = perform(check, executions=executions)
    except NoEnd:
        return f"no end in {seconds:g} s"
    except UsageError:
        return ""  # it does not apply
    if verdict == "fail" or (verdict == "unknown" and check.startswith("run")):
        return said or verdict
    return ""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a planted mistake. `number`: of the check that noticed it."""

    status: str
    by: str = ""
    said: str = ""
    number: int = 0


def under_checks(checks: list[tuple[str, int]], seconds: float, each: float) -> Told:
    """The first that notices what is planted; in so many seconds of CPU, and `each` in its own."""
    for number, (check, executions) in enumerate(checks):
        if time.process_time() > seconds:
            return Told("survived", said=f"{number} of {len(checks)} checks in {seconds:g} s")
        if said := notices(check, executions, each):
            return Told("noticed", check, said, number)
    return Told("survived", said=f"{len(checks)} checks")


class _Failed:
    """A plugin of pytest: the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


def under_tests(folders: list[str]) -> Told:
    """The unit tests there, without those that take long."""
    import pytest

    seconds = 120
    failed = _Failed()
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow and not long"]
    try:
        with limited(seconds), redirect_stdout(StringIO()):
            status = pytest.main([*options, *folders], [failed])
    except NoEnd:
        return Told("noticed", f"tests {' '.join(folders)}", f"no end in {seconds} s")
    if status == pytest.ExitCode.OK:
        return Told("survived")
    return Told(
        "noticed", f"tests {failed.name or 'that cannot be collected'}", f"pytest: {status}"
    )


def main() -> None:
    """A mutant, as JSON on stdin, under checks or tests; what became of it, as JSON."""
    asked = json.load(sys.stdin)
    memory = 8 << 30  # of addresses: each engine of machine code takes one
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    plant(Path(asked["path"]), asked["text"])
    if asked["tests"]:
        told = under_tests(asked["tests"])
    else:
        each = asked.get("check_seconds", CHECK_SECONDS)
        told = under_checks(asked["checks"], asked["seconds"], each)
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main()
