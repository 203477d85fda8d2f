"""`vkemu soak`: a live host under strain for a while; does anything break, or grow?"""

from __future__ import annotations

import argparse
import signal
import sys

import anyio
import msgspec

from vkemu.commands.arguments import add_faults, name, path, seconds, seed
from vkemu.commands.compare import writable
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.soak.page import render
from vkemu.soak.soak import Soak, host
from vkemu.soak.verdict import verdict_line
from vkemu.verdict import OF_VERDICT, telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--minutes", type=seconds, required=True, metavar="N", help="how long; 0.5 is half a minute"
    )
    add("--seed", type=seed, default=1, metavar="S", help="who comes, with what programs (1)")
    add("--policy", type=name, default="pv_entry", help="reverse map (default: pv_entry)")
    add("--mutant", type=name, action="append", default=[], help="add a deliberate defect")
    add_faults(parser)
    add("--backend", choices=BACKENDS, default="trio", help="the event loop")
    add("--report", type=path, metavar="FILE", help="plots, in one HTML file")
    add("--json", action="store_true", help="print all that was found, every sample too, as JSON")


def run(args: argparse.Namespace) -> int:
    if args.report is not None:
        writable(args.report, "--report")
    scenario = host(args.policy, args.mutant, args.fault)

    async def main() -> None:
        soak = soaks[0] = Soak(scenario, args.minutes * 60, args.seed)
        async with anyio.create_task_group() as group:
            await group.start(until_signal, soak)
            told = f"soaking: {args.minutes:g} minutes, Ctrl-C to end it"
            print(told, file=sys.stderr, flush=True)
            await soak.main()
            group.cancel_scope.cancel()

    soaks: dict[int, Soak] = {}
    try:
        on_backend(args.backend, main)
    finally:
        if soaks:
            soaks[0].live.close()
    report = soaks[0].report()
    if args.report is not None:
        args.report.write_text(render(report))
    status = OF_VERDICT[report["verdict"]]
    told_most = 16  # reasons; --json has all
    with telling(status):
        if args.json:
            sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        else:
            reasons = report["reasons"]
            more = [f"and {len(reasons) - told_most} more"] if len(reasons) > told_most else []
            print("\n".join([*reasons[:told_most], *more, verdict_line(report)]))
    return status


async def until_signal(soak: Soak, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """Ctrl-C ends it early; what was seen by then is judged."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            soak.stop()
