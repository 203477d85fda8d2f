"""--set KEY=VALUE: a line of TOML laid over a scenario's document."""

from __future__ import annotations

import tomllib
from typing import Any

from vkemu.mistake import is_text
from vkemu.verdict import UsageError


def read_setting(setting: str, kind: Any) -> dict[str, Any]:
    """As a document of a `kind`. A shell eats quotes, so `policy=removed` may stand for `policy =
    "removed"`; and what TOML takes for a number, a date or a truth is text where text is asked for:
    `host.tree=2020`."""
    try:
        document = tomllib.loads(setting)
        place, value = _leaf(document)
        if isinstance(value, str | list | dict) or not is_text(kind, place):
            return document
    except (ValueError, RecursionError):  # not TOML, or a number of too many digits
        pass
    key, _, value = setting.partition("=")
    try:
        return tomllib.loads(f"{key} = {_quoted(value.strip())}")
    except (ValueError, RecursionError):
        raise UsageError(f"--set: {setting!r}, expected KEY=VALUE in TOML") from None


def _leaf(document: dict[str, Any]) -> tuple[tuple[str, ...], Any]:
    """The one key that is set, and its value; a table if there are more."""
    place: tuple[str, ...] = ()
    value: Any = document
    while isinstance(value, dict) and len(value) == 1:
        ((key, value),) = value.items()
        place = (*place, key)
    return place, value


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def lay_over(document: dict[str, Any], setting: dict[str, Any]) -> None:
    for key, value in setting.items():
        below = document.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            lay_over(below, value)
        else:
            document[key] = value
