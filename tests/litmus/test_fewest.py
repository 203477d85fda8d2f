"""The witnesses of kernel tests have the fewest preemptions that there can be."""

from __future__ import annotations

import pytest
from vkemu.litmus.decide import decide
from vkemu.litmus.file import load_litmus


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "variant", "policy"),
    [
        ("W01-late-enter", "interlock-off", "pv_entry"),
        ("W06-blind-reclaim", "", "extent_scan"),
        ("W07-cluster-launder", "", "vptmapped"),
        ("W24-active-mask", "keeps-cr3", "pv_entry"),
        ("W29-lost-wakeup", "test-before-unlink", "pv_entry"),
        ("W29-lost-wakeup", "unlock-before-enqueue", "pv_entry"),
        ("W33-replace-versus-remove", "no-interlock-count", "extent_scan"),
    ],
)
def test_no_witness_has_fewer_preemptions(test: str, variant: str, policy: str) -> None:
    litmus = load_litmus(test, variant)
    failure = decide(litmus, policy).failure
    assert failure is not None

    bounds = range(failure.preemptions + 1)
    verdicts = [decide(litmus, policy, strategy=f"bounded:{bound}").verdict for bound in bounds]

    assert verdicts == ["pass"] * failure.preemptions + ["fail"]
