"""What a live host costs: start and memory by frames, mmap by entries, a request beside an echo.

`python -m tests.benchmarks.fleet_bench`: processor time, each pair in one run; see each figure
beside the one it is paired with, for the machine may have other work.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from tests.benchmarks.protocol_bench import over_socket
from tests.vkhost.vkernel import Vkernel
from vkhost.vm.vm_map import entries_in, vm_map_findspace
from vkhost.vm.vm_mmap import kern_mmap

START = """
import sys, time, resource
from vkemu.executors.live import Live
from vkemu.launch.assemble import assemble
from vkemu.launch.scenario import Host, Scenario
began = time.process_time()
host = Host(pages=int(sys.argv[1]), cpus=8)
machine = assemble(Scenario(name="b", host=host, guest=()), None, Live(time_scale=1.0))
print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
machine.execution.close()
"""


def start(pages: int) -> tuple[float, float]:
    """Seconds, and MiB of the process, interpreter included."""
    done = subprocess.run(
        [sys.executable, "-c", START, str(pages)], capture_output=True, text=True, check=True
    )
    seconds, resident = map(float, done.stdout.split())
    return seconds, resident


def entries(count: int) -> float:
    """Microseconds to find a place and look an entry up in a map of so many."""
    k = Vkernel()
    vm_map = k.own.vm_map
    for n in range(count):
        k.do(kern_mmap(k.own, k.proc, (2 * n + 1) << 21, 4096, 3, 0x1000 | 0x2 | 0x10, -1, 0))
    vm_map_findspace(vm_map, 0, 4096, 4096)
    began = time.process_time()
    for n in range(2000):
        vm_map_findspace(vm_map, 0, 4096, 4096)
        entries_in(vm_map, (2 * (n % count) + 1) << 21, ((2 * (n % count) + 1) << 21) + 4096)
    return (time.process_time() - began) / 2000 * 1e6


def main() -> None:
    for pages in (1 << 12, 1 << 20):
        seconds, resident = start(pages)
        print(f"start, {pages:9,} frames: {seconds * 1e3:6.1f} ms  {resident:6.1f} MiB")
    for count in (10, 1000, 8000):
        print(f"findspace and lookup, {count:5} entries: {entries(count):6.2f} us")
    for backend in ("trio", "asyncio"):
        for window in (1, 8):
            _, bare = over_socket("bare", backend, 4000, window)
            _, ours = over_socket("host sysctl", backend, 4000, window)
            print(f"request, {backend}, {window} at a time: {ours:6.1f} us, x{ours / bare:.2f}")
    print(f"children used {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s")


if __name__ == "__main__":
    main()
