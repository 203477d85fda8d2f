"""Machine code: instructions a second against unicorn alone, faults against the instruction lists,
memory of a vCPU. User CPU time, so that a busy machine changes little.

python tests/benchmarks/machine_code_bench.py
"""

from __future__ import annotations

import resource
import struct
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import unicorn
from unicorn import x86_const as x86
from vkemu.executors.chance import seeded
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import Recorder
from vkemu.launch.scenario import Scenario, load

from vkhost.pc64.unicorn_cpu import UnicornCpu

LOOPS = 100_000
PAGES = 120
TEXT, DATA = 0x400000, 0x500000
# again: mov rax, [rbx] ; add rax, rcx ; mov [rbx], rax ; dec rcx ; jne again
LOOP = bytes.fromhex("488b03 4801c8 488903 48ffc9 75f2")
INSNS = 5
# again: mov [rbx], rcx ; add rbx, 4096 ; dec rcx ; jne again
TOUCH = bytes.fromhex("48890b 4881c300100000 48ffc9 75f1")
EXIT = bytes.fromhex("31ff b801000000 0f05")


def elf(code: bytes, count: int) -> bytes:
    """mov rbx, DATA ; mov rcx, count ; the code ; exit(0)."""
    text = b"\x48\xbb" + struct.pack("<Q", DATA) + b"\x48\xb9" + struct.pack("<Q", count)
    text += code + EXIT
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, TEXT + 0xB0, 64, 0, 0, 64, 56, 2,
        0, 0, 0,
    )  # fmt: skip
    segments = ((5, 0, TEXT, 0xB0 + len(text), 0xB0 + len(text)), (6, 0, DATA, 0, PAGES << 12))
    for flags, offset, va, filesz, memsz in segments:
        header += struct.pack("<IIQQQQQQ", 1, flags, offset, va, va, filesz, memsz, 4096)
    return header.ljust(0xB0, b"\0") + text


def scenario(folder: Path, code: bytes, count: int, **host: object) -> Scenario:
    (folder / "bench.elf").write_bytes(elf(code, count))
    settings = "\n".join(f"{key} = {str(value).lower()}" for key, value in host.items())
    (folder / "bench.toml").write_text(
        f"max_steps = 50000000\n[host]\npages = 2048\n{settings}\n"
        '[[guest]]\nname = "g"\nmemory = "2M"\nvcpus = 1\nquantum = 1000000\n'
        '[[guest.process]]\nprogram = "bench.elf"\n'
    )
    loaded: Scenario = load(str(folder / "bench.toml"))
    return loaded


def user_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def ran(run: Scenario) -> tuple[float, int]:
    """(user CPU seconds, page faults)."""
    machine = assemble(run)
    start = user_seconds()
    machine.execution.run(Recorder(seeded(1)), run.max_steps)
    machine.finish()
    return user_seconds() - start, machine.kernel.vmmeter.counters["v_vm_faults"]


def alone(count: int) -> float:
    """Instructions a second of unicorn, `count` to a call."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(TEXT, 4096)
    uc.mem_map(DATA, 4096)
    uc.mem_write(TEXT, LOOP)
    uc.reg_write(x86.UC_X86_REG_RBX, DATA)
    uc.reg_write(x86.UC_X86_REG_RCX, 1 << 40)
    calls = LOOPS * INSNS // count
    start = user_seconds()
    rip = TEXT
    for _ in range(calls):
        uc.emu_start(rip, 0, count=count)
        rip = uc.reg_read(x86.UC_X86_REG_RIP)
    return calls * count / (user_seconds() - start)


def main() -> None:
    whole, thousand = alone(LOOPS * INSNS), alone(1000)
    print(f"unicorn alone, one call              {whole:12,.0f} insns/s")
    print(f"unicorn alone, 1,000 a call          {thousand:12,.0f} insns/s")
    with TemporaryDirectory() as name:
        folder = Path(name)
        for insns, merged in ((1, False), (100, True), (1000, True), (10_000, True)):
            loops = LOOPS // 10 if insns == 1 else LOOPS * 10
            run = scenario(folder, LOOP, loops, user_insns=insns, merge_accesses=merged)
            rate = loops * INSNS / ran(run)[0]
            print(
                f"{insns:6,} a step{', merged' if merged else '        '}               "
                f"{rate:12,.0f} insns/s, {rate / thousand:.2f} of 1,000 a call"
            )
        seconds, faults = ran(scenario(folder, TOUCH, PAGES))
        print(f"faults, machine code                 {faults / seconds:12,.0f} faults/s")
    text = (
        '[[guest]]\nname = "g"\nmemory = "2M"\nvcpus = 1\n'
        f'workloads = ["touch:pages={PAGES},rounds=1"]\n[host]\npages = 2048\n'
    )
    with TemporaryDirectory() as name:
        file = Path(name) / "lists.toml"
        file.write_text(text)
        seconds, faults = ran(load(str(file)))
    print(f"faults, instruction lists            {faults / seconds:12,.0f} faults/s")
    memory_of_vcpus()


def memory_of_vcpus() -> None:
    before = resident()
    start = time.process_time()
    made = [UnicornCpu() for _ in range(16)]
    took = (time.process_time() - start) / len(made)
    each = (resident() - before) / len(made) / 1024
    print(f"a vCPU                               {each:12,.0f} KiB, {took * 1e3:.1f} ms to make")


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
