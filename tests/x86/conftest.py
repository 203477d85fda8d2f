"""Machine code needs the extra `x86`: without it this folder is one skipped line."""

from __future__ import annotations

from pathlib import Path

try:
    import unicorn  # noqa: F401
except ImportError:
    says_so = "test_installed.py"
    collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py")]
    collect_ignore.remove(says_so)
