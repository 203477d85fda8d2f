from __future__ import annotations

import pytest

INI = """
[pytest]
trio_mode = true
filterwarnings = error
addopts = --strict-markers --strict-config -p no:cacheprovider
"""
LOST_UPDATE = """
import pytest
import vkemu

async def increment(x):
    value = await x.load()
    await x.store(value + 1)
"""


class Suite:
    """A test file in a folder of its own, and pytest run on it in this process."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makeini(INI)

    def __call__(self, text: str, *args: str) -> pytest.RunResult:
        self.pytester.makepyfile(test_it=LOST_UPDATE + text)
        return self.pytester.runpytest_inprocess(*args)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    return Suite(pytester)
