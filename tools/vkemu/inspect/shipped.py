"""Formats and recipes for other tools, which are installed with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent.parent
FILES: Final = {
    "lnav/vkemu_log.json": "lnav -i FILE installs it; then `lnav runs/latest/events.ndjson`",
    "jq/vkemu.jq": "jq -L DIRECTORY -c 'include \"vkemu\"; page(12)' runs/latest/events.ndjson",
}


def path(name: str) -> Path:
    """Where a shipped file is."""
    assert name in FILES
    return PACKAGE / name
