"""`vkemu serve`: the host as a process of its own; guests come over a unix socket."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import msgspec

from vkemu.commands.arguments import name, path, positive, setting
from vkemu.commands.run import collect_settings
from vkemu.executors.live import BACKENDS, Live, on_backend
from vkemu.launch.assemble import Machine, assemble
from vkemu.launch.outcome import FAILURES, headline
from vkemu.launch.scenario import Scenario, lay_over, load, read, read_setting
from vkemu.record import rundir
from vkemu.record.live_log import LiveLog, open_log
from vkemu.serving.server import Server
from vkemu.serving.transport import listen
from vkemu.verdict import OF_VERDICT, UsageError, Verdict, telling

# What the host is when no scenario says it; a stand-in for the guests, which come from outside.
DEFAULTS = {"host": {"pages": 4096, "cpus": 8}}
STAND_IN = {"name": "outside", "memory": "1M", "vcpus": 1, "workloads": ["touch"]}
TIME_SCALE_MAX = 1e6


class Stopped(Exception):
    """The user has no patience with what is left."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scenario", nargs="?", help="host, policy, quirks and checks as in this one; not its guests"
    )
    parser.add_argument("--socket", type=path, required=True, metavar="PATH", help="where to serve")
    parser.add_argument("--policy", type=name, help="reverse map, instead of the scenario's")
    parser.add_argument(
        "--mutant", type=name, action="append", default=[], help="add a deliberate defect"
    )
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="lay a setting over the scenario, as host.pages=300",
    )
    parser.add_argument("--guests", type=positive, metavar="N", help="shut down when N have gone")
    parser.add_argument(
        "--time-scale",
        type=float,
        default=1.0,
        metavar="X",
        help="virtual seconds to a real one, for what the kernel does by time (default: 1)",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="trio", help="the event loop")
    parser.add_argument("--runs", type=path, metavar="DIR", help="keep a run folder, with a log")
    parser.add_argument("--zstd", action="store_true", help="with --runs: events.ndjson.zst")
    parser.add_argument("--events", action="store_true", help="show the events on standard error")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON at the end")
    parser.set_defaults(max_steps=None)


def run(args: argparse.Namespace) -> int:
    if not 0 < args.time_scale <= TIME_SCALE_MAX:
        raise UsageError(
            f"vkemu serve: --time-scale {args.time_scale:g}, expected up to {TIME_SCALE_MAX:g}"
        )
    if args.zstd and args.runs is None:
        raise UsageError("vkemu serve: --zstd is about the log, expected with --runs DIR")
    scenario = host_of(args)
    with ExitStack() as stack:
        log = folder = None
        if args.runs is not None:
            folder = stack.enter_context(rundir.new_run(args.runs, scenario.name))
        if folder is not None or args.events:
            run = f"{scenario.name}/{scenario.policy}/serve"
            shown = sys.stderr if args.events else None
            log = stack.enter_context(open_log(run, folder, zstd=args.zstd, shown=shown))
            if folder is not None:
                tell(f"logging to {folder.events_path(zstd=args.zstd)}")  # for log show --follow
        summary, failure = serve(scenario, args, log)
        if log is not None:
            missing = log.close()
            if missing:
                tell(missing)
            summary["dropped"] = log.dropped
        if folder is not None:
            folder.write_json(rundir.SCENARIO, msgspec.to_builtins(scenario))
            folder.write_json(rundir.SUMMARY, summary)
            if failure:
                folder.write_text(rundir.FAILURE, failure)
    status = OF_VERDICT[summary["verdict"]]
    with telling(status):
        report(summary, failure, as_json=args.json)
    return status


def report(summary: dict[str, Any], failure: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    else:
        if failure:
            print(failure)
        print(f"{summary['verdict']}: {summary['guests']} guests, {summary['steps']:,} steps")


def host_of(args: argparse.Namespace) -> Scenario:
    """The scenario with nobody in it."""
    settings = collect_settings(args)
    if args.scenario is None:
        document: dict[str, Any] = {"name": "serve", **msgspec.to_builtins(DEFAULTS)}
        document["guest"] = [STAND_IN]
        for setting in settings:
            lay_over(document, read_setting(setting))
        scenario = read(document, Path("vkemu serve"))
    else:
        scenario = load(args.scenario, settings)
    return msgspec.structs.replace(scenario, guest=())


def serve(
    scenario: Scenario, args: argparse.Namespace, log: LiveLog | None
) -> tuple[dict[str, Any], str]:
    """Serve to the end: the summary, and what went wrong if anything did."""
    live = Live(time_scale=args.time_scale)
    machine = assemble(scenario, log, live)
    say = tell if log is None else log.tell
    server = Server(live, machine.kernel, say, args.guests)
    verdict: Verdict = "pass"
    failure = ""
    try:
        on_backend(args.backend, Serving(server, args.socket).main)
        machine.oracle.finish()
    except OSError as error:
        raise UsageError(f"vkemu serve: {error}") from None
    except Stopped as error:
        verdict, failure = "unknown", str(error)
    except FAILURES as error:
        verdict, failure = "fail", headline(error)
    finally:
        live.close()
    return summarize(scenario, machine, server, verdict, failure), failure


class Serving:
    """The server with its socket and the signals that end it."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self.path = path
        self._failures: list[BaseException] = []

    async def main(self) -> None:
        async with listen(self.path) as listener, anyio.create_task_group() as group:
            group.start_soon(self._until_signal)
            self.server.tell(f"serving at {self.path}")
            try:
                await self.server.run(listener)
            except (Stopped, *FAILURES) as error:
                self._failures.append(error)
            group.cancel_scope.cancel()
        for failure in self._failures:
            raise failure

    async def _until_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await anext(signals)
            self.server.shutdown()
            await anext(signals)
            left = self.server.live.deadlock()
            self.server.live.stop(Stopped(f"told to stop twice; left: {left}"))


def summarize(
    scenario: Scenario, machine: Machine, server: Server, verdict: Verdict, failure: str
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "failure": failure or None,
        "scenario": scenario.name,
        "policy": scenario.policy,
        "mutants": list(scenario.mutants),
        "guests": server.served,
        "steps": server.live.steps,
        "virtual_ns": server.live.clock,
        "counters": machine.counters(),
    }


def tell(line: str) -> None:
    """Standard output is for results."""
    print(line, file=sys.stderr, flush=True)
