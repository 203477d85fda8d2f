"""A failing run made readable: `failure.txt` to paste, `report.html` to walk through."""

from __future__ import annotations
