"""Machine code needs the extra `x86`: without it these tests are one line of the report."""

from __future__ import annotations

import pytest

pytest.importorskip("unicorn", reason="needs vkemu[x86]")
