"""Machine code needs the extra `x86`: without it this folder is one skipped line."""

from __future__ import annotations

try:
    import unicorn  # noqa: F401
except ImportError:
    collect_ignore_glob = ["test_[!i]*.py"]  # all but test_installed.py, which says so
