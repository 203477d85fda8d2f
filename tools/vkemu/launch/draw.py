"""What a scenario leaves to the seed: the programs of its `random` and `wild` workloads, and what
its native processes do; and when faults of a chance come.

`random:ops=8` becomes `random:ops=8,seed=3920116512`, of the run's seed, the guest and the place in
its list, so that each seed of a search is another program under another schedule, and the scenario
a run folder keeps says which.
"""

from __future__ import annotations

from random import Random

import msgspec

from vkemu.launch.scenario import Scenario

BITS = 32


def drawn(scenario: Scenario, seed: int) -> Scenario:
    """`scenario` with nothing left open. A workload that names its seed keeps it."""
    guests = tuple(
        msgspec.structs.replace(
            guest,
            workloads=tuple(
                _workload(spec, f"{seed} {guest.name} {place}")
                for place, spec in enumerate(guest.workloads)
            ),
        )
        for guest in scenario.guest
    )
    natives = tuple(
        msgspec.structs.replace(native, seed=Random(f"{seed} {native.name}").getrandbits(BITS))
        if native.ops and native.seed is None
        else native
        for native in scenario.native
    )
    faults = tuple(
        msgspec.structs.replace(fault, seed=Random(f"{seed} fault {place}").getrandbits(BITS))
        if fault.chance < 1 and not fault.seed
        else fault
        for place, fault in enumerate(scenario.fault)
    )
    return msgspec.structs.replace(scenario, guest=guests, native=natives, fault=faults)


def _workload(spec: str, whose: str) -> str:
    name, _, rest = spec.partition(":")
    random_ones = ("random", "wild")
    if name not in random_ones or any(pair.startswith("seed=") for pair in rest.split(",")):
        return spec
    return f"{name}:{rest}{',' * bool(rest)}seed={Random(whose).getrandbits(BITS)}"
