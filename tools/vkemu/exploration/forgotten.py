"""A forgotten `await`: an operation that was made and dropped, and so did nothing.

Operations are coroutines to the interpreter (`vkprotocol.step.coroutine`), which warns when one is
dropped that never ran. Listening costs a step nothing. While the first execution runs the
interpreter also notes who made each, for what is kept for a while before it is dropped.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vkemu.exploration.result import ExplorationError

_FRAME: Final = re.compile(r'File "(?P<file>.*)", line (?P<line>\d+), in (?P<function>.*)')
_OURS: Final = str(Path(__file__).parent)

FORGOTTEN: Final[list[str]] = []  # in the execution under way, a line each


class ForgottenAwait(ExplorationError, TypeError):
    """Of the program: without the `await` an operation does nothing."""


@contextmanager
def noticing() -> Iterator[None]:
    """Note in FORGOTTEN what is dropped without having run while the body does."""
    never_awaited = r"coroutine '(?P<name>.*)' was never awaited"
    with warnings.catch_warnings():
        warnings.filterwarnings("always", never_awaited, RuntimeWarning)
        show = warnings.showwarning

        def note(
            message: Any, category: Any, filename: str, lineno: int, file: Any = None, *_: Any
        ) -> None:
            never = re.match(never_awaited, str(message))
            if never is None:
                show(message, category, filename, lineno, file)
                return
            name, source, line = never["name"].replace("Making.", "k."), filename, str(lineno)
            for made in reversed([*_FRAME.finditer(str(message))]):
                source, line = made["file"], made["line"]
                if not source.startswith(_OURS):
                    break
                name = f"k.{made['function']}"  # a method of `k` that makes an operation
            place = f"{source.removeprefix(f'{Path.cwd()}/')}:{line}"
            FORGOTTEN.append(f"{place}: {name}() is never awaited and does nothing")

        warnings.showwarning = note  # type: ignore[assignment]
        yield


@contextmanager
def origins(frames: int = 2) -> Iterator[None]:
    """The interpreter notes the line that makes each coroutine, and those that led there."""
    depth = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(max(depth, frames))
    try:
        yield
    finally:
        sys.set_coroutine_origin_tracking_depth(depth)


def refused() -> ForgottenAwait:
    line = FORGOTTEN[0]
    FORGOTTEN.clear()
    return ForgottenAwait(f"{line}, expected `await`")
