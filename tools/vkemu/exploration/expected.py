"""Arguments: what will not do is one line that says what it was, and what was expected."""

from __future__ import annotations

from typing import Any


def whole(name: str, value: Any, least: int | None) -> None:
    expected = "a whole number" if least is None else f"a whole number, at least {least}"
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise wrong(name, value, expected, TypeError)
    if least is not None and value < least:
        raise wrong(name, value, expected)


def seconds(name: str, value: Any) -> None:
    expected = "seconds, at least 0"
    if isinstance(value, bool | str) or not hasattr(type(value), "__float__"):
        raise wrong(name, value, expected, TypeError)
    if not value >= 0:  # nor NaN
        raise wrong(name, value, expected)


def duration(name: str, value: Any) -> None:
    seconds(name, value)
    if value == float("inf"):
        raise wrong(name, value, "seconds, at least 0, and not for ever")


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise wrong(name, value, "True or False", TypeError)


def several(name: str, value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        raise wrong(name, value, "a list of shared objects", TypeError) from None


def wrong(
    name: str, value: Any, expected: str, kind: type[ValueError | TypeError] = ValueError
) -> ValueError | TypeError:
    return kind(f"{name}: {value!r}, expected {expected}")
