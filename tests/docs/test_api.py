"""What the reference of what can be imported shows is what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

API = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_examples_of_the_api_page() -> None:
    shown: dict[str, Any] = {}
    blocks = re.findall(r"\.\. doctest::\n\n((?:   .*\n)+)", API.read_text())
    assert len(blocks) > 1
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block, shown, "api.md", str(API), 0)
        assert doctest.DocTestRunner().run(test).failed == 0
