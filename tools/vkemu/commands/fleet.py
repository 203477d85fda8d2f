"""`vkemu fleet`: a scenario with its host and each of its guests as processes, supervised.

The host is `vkemu serve` on a unix socket that nobody else can reach, a guest is `vkemu guest
--scenario FILE --name NAME`. All of them end before this process does, unless that is killed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from vkemu.commands import settings
from vkemu.commands.arguments import positive
from vkemu.commands.child import Child
from vkemu.commands.serve import CHECKING
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.launch.assemble import uses_disk
from vkemu.launch.scenario import Scenario, load
from vkemu.serving.server import STOP_SECONDS
from vkemu.verdict import OF_VERDICT, Status, UsageError, Verdict, telling

KILL_SECONDS = STOP_SECONDS + 2.0  # told to stop so long ago, whoever is left is killed
READY = "serving at "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("scenario", metavar="FILE", help="a scenario: a path, or the name of a shipped one")
    settings.add_arguments(parser)
    add("--checks", choices=tuple(CHECKING), help="what the oracle looks at (default: all)")
    add("--patience", type=positive, metavar="S", help="how long a host may owe a guest an answer")
    add("--backend", choices=BACKENDS, default="trio", help="the event loop of each")
    add("--json", action="store_true", help="print what became of each as JSON")


def run(args: argparse.Namespace) -> int:
    laid_over = settings.of(args)
    scenario = load(args.scenario, laid_over)
    for guest in scenario.guest:
        if uses_disk(guest):
            raise UsageError(
                f"{args.scenario}: guest {guest.name} has a disk, "
                "expected none in a process of its own"
            )
    with tempfile.TemporaryDirectory(prefix="vkemu-fleet-") as folder:
        fleet = Fleet(scenario, args, laid_over, Path(folder) / "host")
        on_backend(args.backend, fleet.main)
    summary = fleet.summary()
    status = OF_VERDICT[summary["verdict"]]
    with telling(status):
        if args.json:
            print(msgspec.json.encode(summary).decode())
        else:
            print("\n".join(lines(summary)))
    return status


class Fleet:
    """The processes, from the host's start to the end of the last."""

    def __init__(
        self, scenario: Scenario, args: argparse.Namespace, settings: Sequence[str], socket: Path
    ) -> None:
        self.scenario = scenario
        common = [word for line in settings for word in ("--set", line)]
        common += ["--backend", args.backend, "--json"]
        checks = [] if args.checks is None else ["--checks", args.checks]
        patience = [] if args.patience is None else ["--patience", str(args.patience)]
        where = ["--socket", str(socket)]
        self.host = Child("host", ["serve", args.scenario, *where, *checks, *common], tell)
        self.guests = []
        for guest in scenario.guest:
            who = ["--scenario", args.scenario, "--name", guest.name]
            words = ["guest", *who, *where, *patience, *common]
            self.guests.append(Child(guest.name, words, tell))
        self.stopped = False
        self._host_told = False

    async def main(self) -> None:
        ready = anyio.Event()
        self.host.heard = lambda line: ready.set() if line.startswith(READY) else None
        async with anyio.create_task_group() as around:
            await around.start(self._until_signal, around)
            async with anyio.create_task_group() as group:
                group.start_soon(self._run_host, ready)
                await ready.wait()
                async with anyio.create_task_group() as guests:
                    for guest in self.guests:
                        if not self.stopped and self.host.status is None:
                            guests.start_soon(self._run, guest)
                self._end_host()
            around.cancel_scope.cancel()

    async def _run_host(self, ready: anyio.Event) -> None:
        try:
            await self._run(self.host)
        finally:
            ready.set()  # or it never will be

    async def _run(self, child: Child) -> None:
        await child.run()
        if child.killed_by and not self.stopped:
            tell(f"{child.name}: {child.ending}")

    def _end_host(self) -> None:
        """Once: told twice, it leaves what it is at."""
        if not self._host_told:
            self._host_told = True
            self.host.send(signal.SIGTERM)

    async def _until_signal(
        self, group: TaskGroup, *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if self.stopped:
                    break  # no patience
                self.stopped = True
                # The host says goodbye to the guests; who does not heed it has a deadline.
                self._end_host()
                group.start_soon(self._kill_in, KILL_SECONDS)
            await self._kill_in(0)

    async def _kill_in(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        for child in (*self.guests, self.host):
            child.send(signal.SIGKILL)

    def summary(self) -> dict[str, Any]:
        return {
            "verdict": worst([child.status for child in (self.host, *self.guests)]),
            "scenario": self.scenario.name,
            "policy": self.scenario.policy,
            "stopped": self.stopped,
            "host": self.host.told(),
            "guests": {guest.name: guest.told() for guest in self.guests},
        }


def worst(statuses: Sequence[int | None]) -> Verdict:
    """A violation anywhere is one of the fleet; who did not end well leaves it unknown."""
    if Status.VIOLATION in statuses:
        return "fail"
    return "unknown" if any(status != Status.PASS for status in statuses) else "pass"


def lines(summary: dict[str, Any]) -> list[str]:
    """One for each process that did not end well, and the verdict."""
    guests = summary["guests"]
    everybody = {"host": summary["host"], **guests}
    found = [
        f"{who}: {told['ending']}"
        for who, told in everybody.items()
        if told["status"] != Status.PASS
    ]
    passed = sum(told["status"] == Status.PASS for told in guests.values())
    host = summary["host"]["said"] or {}
    steps = f", {host['steps']:,} steps" if "steps" in host else ""
    return [*found, f"{summary['verdict']}: {passed} of {len(guests)} guests{steps}"]


def tell(line: str) -> None:
    """To whoever listens. That nobody does is no reason to leave the children alone."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
