"""Zstandard files: the standard library's from Python 3.14 on, its backport before."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, Literal, cast

from vkemu.verdict import UsageError

SUFFIX = ".zst"


def module(what_for: str) -> Any:
    """The module `zstd`; UsageError when there is none."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise UsageError(f"{what_for} needs `pip install 'vkemu[zstd]'`") from None
    return zstd


def open_zstd(path: Path, mode: Literal["rb", "wb"], what_for: str) -> IO[bytes]:
    return cast("IO[bytes]", module(what_for).open(path, mode))
