"""The examples of docs/async.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "async.md"


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

    assert blocks
    for block in blocks:
        names: dict[str, Any] = {"__name__": "example"}
        exec(compile(block, "example.py", "exec"), names)
        assert names["result"].verdict == "fail"
