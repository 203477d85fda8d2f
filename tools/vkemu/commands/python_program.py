"""A function of a Python file, as a program to explore."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import Any

from vkemu.testing.explored import ROOT, is_explored
from vkemu.verdict import UsageError


class PythonProgram:
    """A function of a Python file: it builds a program, or is its first thread when async.

    What goes wrong while it builds is the user's, and told in a line.
    """

    def __init__(self, path: str, function: str) -> None:
        self.path = path
        self.function = function
        module = load_module(Path(path), function)
        self.source = Path(path).read_bytes()
        found = getattr(module, function, None)
        if is_explored(found):
            found = found.__wrapped__  # type: ignore[union-attr]
        if found is None or not callable(found):
            raise UsageError(f"{path}: no function {function!r}, expected one that takes k")
        self.build: Callable[..., Any] = found

    @property
    def identity(self) -> str:
        return f"{self.function} {sha256(self.source).hexdigest()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return PythonProgram, (self.path, self.function)

    def __call__(self, k: Any) -> None:
        try:
            if iscoroutinefunction(self.build):
                k.joinable = True
                k.spawn(ROOT, self.build(k))
            else:
                self.build(k)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{place_of(error, self.path)}: {described(error)}") from None
        if not k.execution.threads:
            raise UsageError(
                f"{self.path}: {self.function} spawns no thread, expected k.spawn(name, body)"
            )


def load_module(path: Path, function: str) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: no such file, expected Python with a function {function}(k)")
    name = f"vkemu_program_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # where dataclasses and pickle look
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python FILE.py` would
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{place_of(error, str(path))}: {described(error)}, expected a module to import"
        ) from None
    return module


def described(error: BaseException) -> str:
    text = getattr(error, "msg", None) if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(error: BaseException, path: str) -> str:
    """`path`, with the innermost of its lines that the error came through."""
    if isinstance(error, SyntaxError) and error.lineno is not None and not error.__cause__:
        return f"{path}:{error.lineno}"
    lines = [
        entry.lineno
        for entry in traceback.extract_tb(error.__traceback__)
        if Path(entry.filename).name == Path(path).name
    ]
    return f"{path}:{lines[-1]}" if lines else path
