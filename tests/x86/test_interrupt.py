"""An interrupt, Ctrl-C or a deadline, is not lost in unicorn's hooks, wherever it comes."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from unicorn.unicorn_py3 import unicorn as binding

from tests.x86.test_machine_code import DATA, PAGE, Guest
from vkhost.pc64 import unicorn_cpu

FILES = (unicorn_cpu.__file__, binding.__file__)


def in_hook(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "emu_start":
        frame = frame.f_back
    return frame is not None


def run(interrupt: int | None = None) -> list[str]:
    """The lines of hooks, and their calls: before the first line. KeyboardInterrupt is raised at
    one of them by its number, as a signal's handler would."""
    # mov rax, [rbx] ; mov [rbx], rcx ; syscall
    k = Guest("488b03 48890b 0f05")
    seen: list[str] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES or not in_hook(frame):
            return None
        seen.append(f"{event} {frame.f_code.co_name}:{frame.f_lineno}")
        if len(seen) - 1 == interrupt:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        k.run_user(rbx=DATA * PAGE, rcx=2)
    finally:
        sys.settrace(before)
    return seen


def test_an_interrupt_is_raised_wherever_it_comes() -> None:
    run()  # what is made once is there
    places = run()
    hook = sys.unraisablehook
    assert any(place.startswith("call wrapper:") for place in places)  # whom ctypes calls
    for place in dict.fromkeys(places):
        with pytest.raises(KeyboardInterrupt):
            run(places.index(place))
    assert sys.unraisablehook is hook
    assert run() == places
