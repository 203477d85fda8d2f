"""What is said on a terminal: as wide as it is, failures in colours (not with NO_COLOR).

Elsewhere it is plain, and as wide as failure.txt.
"""

from __future__ import annotations

import re
import sys
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vkemu.report.told import Told

RULES: Final = tuple(
    (re.compile(pattern, re.MULTILINE), style)
    for pattern, style in (
        (r"^BUG: .*|^fail: .*|^Verdict fail.*", "bold red"),
        (r"<- harm done.*", "bold red"),
        (r"<- window (opens|closes)", "yellow"),
        (r"^ [.|'](?= )", "yellow"),  # the window in the margin
        (r"^\* .*", "yellow"),  # a step that conflicts
        (r"^ +(replay|closed by|window|moved): ", "bold"),
    )
)


def show(text: str) -> None:
    coloured = [rule for rule in RULES if rule[0].search(text)] if sys.stdout.isatty() else []
    if not coloured:
        print(text, end="")
        return
    from rich.console import Console
    from rich.text import Text

    shown = Text(text)
    for pattern, style in coloured:
        shown.highlight_regex(pattern, style)
    Console(soft_wrap=True).print(shown, end="")


def of(told: Told, kept: str = "") -> str:
    """`kept`: what `vkemu replay` takes in place of a token too long to be pasted."""
    if sys.stdout.isatty():
        return told.on_screen(get_terminal_size().columns, kept)
    return told.on_screen(kept=kept) if kept else told.text
