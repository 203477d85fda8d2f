"""Generated mutants that were looked at and change nothing that anybody could see, each with why.

By the changed lines, so that they are found again when the file has moved them.
"""

from __future__ import annotations

from typing import Final

EQUIVALENT: Final[dict[str, str]] = {}
