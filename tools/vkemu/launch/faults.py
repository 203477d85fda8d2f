"""[[fault]] of a scenario: what its table alone cannot say."""

from __future__ import annotations

from vkemu.verdict import UsageError, known
from vkhost.config import HostConfig
from vkhost.fault_injection import IMAGE_IO, OF_CPUS, InjectedFault


def check_fault(
    fault: InjectedFault, guests: list[str], natives: list[str], host: HostConfig, where: str
) -> None:
    """Whoever it names exists, and it can happen."""
    if fault.guest and (fault.kind in OF_CPUS or fault.kind.startswith("swap-")):
        raise UsageError(f"{where}.guest: {fault.guest!r}, expected none for {fault.kind}")
    if fault.guest:
        known(
            f"{where}.guest", fault.guest, guests if fault.kind in IMAGE_IO else [*guests, *natives]
        )
    if fault.cpu is not None and fault.kind not in OF_CPUS:
        raise UsageError(f"{where}.cpu: {fault.cpu}, expected none for {fault.kind}")
    if fault.cpu is not None and fault.cpu >= host.cpus:
        raise UsageError(f"{where}.cpu: {fault.cpu}, expected 0 to {host.cpus - 1} (host.cpus)")
    if fault.kind == "late-ipi" and (host.shootdown != "stream" or not host.ipi_threads):
        raise UsageError(f'{where}.kind: late-ipi, expected with host.shootdown = "stream"')
