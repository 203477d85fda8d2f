"""A run of one guest, small enough to be made in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from vkemu.executors.chance import seeded
from vkemu.launch.scenario import Guest, Host, Scenario
from vkemu.report.trial import Origin, Record, record


class Small:
    text: Final = """
policy = "pv_entry"
host.pages = 300
host.cpus = 1
[[guest]]
name = "g1"
memory = "1M"
vcpus = 1
workloads = ["touch:pages=1,rounds=1"]
"""

    def record(self, root: Path, **options: Any) -> Record:
        guest = Guest(name="g1", memory="1M", vcpus=1, workloads=("touch:pages=1,rounds=1",))
        scenario = Scenario(name="small", host=Host(pages=300, cpus=1), guest=(guest,))
        return record(scenario, seeded(1), Origin("small", (), "random", 1), root, **options)


SMALL: Final = Small()
