"""--set KEY=VALUE: a line of TOML laid over a scenario's document."""

from __future__ import annotations

import tomllib
from typing import Any

from vkemu.verdict import UsageError


def read_setting(setting: str) -> dict[str, Any]:
    try:
        return tomllib.loads(setting)
    except (ValueError, RecursionError):  # not TOML, or a number of too many digits
        # A shell eats quotes: `policy=removed` may stand for `policy = "removed"`.
        key, _, value = setting.partition("=")
        try:
            return tomllib.loads(f"{key} = {_quoted(value.strip())}")
        except (ValueError, RecursionError):
            raise UsageError(f"--set: {setting!r}, expected KEY=VALUE in TOML") from None


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def lay_over(document: dict[str, Any], setting: dict[str, Any]) -> None:
    for key, value in setting.items():
        below = document.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            lay_over(below, value)
        else:
            document[key] = value
