"""Where a program comes from, so that another process can build the same one.

A function of a module is known by the module's file and its own name; a `functools.partial` of one
by that and its arguments; any other object has to be picklable.
"""

from __future__ import annotations

import pickle
import sys
import zlib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from types import FunctionType, ModuleType
from typing import Any

from vkemu.exploration.result import ExplorationError

Build = Callable[[Any], object]


def reference(program: Build) -> bytes:
    """What `program_of` makes the same program of, in any process on this machine."""
    try:
        return pickle.dumps(_refer(program))
    except Exception as error:
        name = getattr(program, "__qualname__", repr(program))
        raise ExplorationError(
            f"jobs: other processes cannot import the program {name} ({error}); "
            "define it at the top level of a module, with functools.partial for its arguments"
        ) from None


def program_of(referred: bytes) -> Build:
    return _find(pickle.loads(referred))


def _refer(program: Any) -> tuple[Any, ...]:
    if isinstance(program, partial):
        return ("partial", _refer(program.func), program.args, program.keywords)
    if isinstance(program, FunctionType):
        if "<" in program.__qualname__:
            raise ValueError("it is defined inside a function")
        return ("function", program.__module__, program.__code__.co_filename, program.__qualname__)
    return ("object", pickle.dumps(program))


def _find(referred: tuple[Any, ...]) -> Build:
    match referred:
        case ("partial", inner, args, keywords):
            return partial(_find(inner), *args, **keywords)
        case ("function", module, file, name):
            found: Any = _module(module, file)
            for part in name.split("."):
                found = getattr(found, part)
            return found  # type: ignore[no-any-return]
        case ("object", pickled):
            return pickle.loads(pickled)  # type: ignore[no-any-return]
    raise AssertionError(referred)


def _module(name: str, file: str) -> ModuleType:
    """The module by name, where that leads to the same file, else by the file."""
    if name != "__main__":
        try:
            module = import_module(name)
        except ImportError:
            pass
        else:
            if getattr(module, "__file__", None) == file:
                return module
    alias = f"vkemu_program_{zlib.crc32(file.encode(errors='surrogatepass')):08x}"
    if alias in sys.modules:
        return sys.modules[alias]
    spec = spec_from_file_location(alias, file)
    if spec is None or spec.loader is None:
        raise ExplorationError(f"jobs: cannot load the program's module {name} from {file}")
    module = sys.modules[alias] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
