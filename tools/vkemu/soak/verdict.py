"""A soak in a line."""

from __future__ import annotations

from typing import Any

from vkemu.soak.samples import ENOUGH_SECONDS


def verdict_line(report: dict[str, Any]) -> str:
    samples = report["samples"]
    visits = sum(report["visits"].values())
    said = (
        f"{report['verdict']}: {report['policy']}, seed {report['seed']}, "
        f"{report['seconds']:.1f} s, {visits:,} visits, {report['steps']:,} steps"
    )
    if samples:
        resident = [sample.resident_bytes / (1 << 20) for sample in samples]
        worst = max(sample.worst for sample in samples) * 1e3
        said += f", resident {resident[0]:.0f} to {resident[-1]:.0f} MiB, worst wait {worst:.0f} ms"
    if report["growth_judged"]:
        return said
    return f"{said}; too short to judge growth (under {ENOUGH_SECONDS:g} s)"
