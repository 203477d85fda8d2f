"""`vkemu explore FILE.py::TEST`: an async function of a Python file, as it stands."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from inspect import iscoroutinefunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vkemu.verdict import UsageError

if TYPE_CHECKING:
    from vkemu.commands.subject import Subject
    from vkemu.exploration.result import Failure, Result
    from vkemu.report.told import Told


def async_subject(args: Namespace) -> Subject:
    """Of `FILE.py::TEST`; what `explored` was given for the test is what it is searched with."""
    from vkemu.commands.python_program import load_module
    from vkemu.commands.subject import Subject, again
    from vkemu.exploration import explore
    from vkemu.testing.world_test import backend_of
    from vkemu.worlds.async_program import OPTIONS, AsyncProgram

    path, _, name = args.file.partition("::")
    for option, given in (("--policy", args.policy), ("--variant", args.variant)):
        if given:
            raise UsageError(f"{option} {given!r}, expected none: {path} is Python")
    found = getattr(load_module(Path(path), name), name, None)
    options = dict(getattr(found, "vkemu_options", {}))
    test: Any = getattr(found, "__wrapped__", found)
    if not iscoroutinefunction(test):
        raise UsageError(f"{path}: no async function {name!r}, expected one of trio or asyncio")
    if signature(test).parameters:
        given = ", ".join(signature(test).parameters)
        raise UsageError(f"{path}: {name} takes {given}: fixtures are pytest's, run it with pytest")
    try:
        backend = options.pop("backend", None) or backend_of(test, None)
        of_world = {key: options[key] for key in OPTIONS if key in options}
        program = AsyncProgram(test, backend, **of_world)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: {name}: {error}") from None

    max_steps = 10_000

    def tell(failure: Failure) -> Told:
        from vkemu.report.program import tell_program
        from vkemu.report.told import Told

        report = tell_program(
            failure, program, name=name, max_steps=max_steps, replay=replay(failure),
            measured=False,
        )  # fmt: skip

        def narrated(columns: int) -> str:
            return f"{failure.narrated(columns)}\nreplay: {replay(failure)}\n"

        return Told(narrated(0), report, narrated)

    def text(result: Result) -> str:
        doubt = f"\n{result.doubt}" if result.doubt else ""
        return f"{result.verdict}: {Path(path).stem}::{name}{doubt}"

    replay = partial(again, args)
    return Subject(
        name=f"{Path(path).stem}::{name}",
        program=program,
        explore=partial(explore, program),
        text=text,
        verdict=lambda result: result.verdict,
        token=lambda failure: failure.token,
        replay=replay,
        tell=tell,
        max_steps=int(options.get("max_steps", max_steps)),
        strategy=str(options.get("strategy", "dpor")),
    )
