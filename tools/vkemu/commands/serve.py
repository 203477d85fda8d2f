"""`vkemu serve`: the host as a process of its own; guests come over unix sockets or TCP."""

from __future__ import annotations

import argparse
import math
import resource
import signal
import ssl
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import anyio
import msgspec

from vkemu.commands import settings
from vkemu.commands.arguments import between, path, positive
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.live import Live
from vkemu.launch.assemble import Machine, assemble
from vkemu.launch.outcome import FAILURES, headline
from vkemu.launch.scenario import Scenario, load, read
from vkemu.launch.setting import lay_over, read_setting
from vkemu.oracle import CHECKS, DEFAULT_CHECKS
from vkemu.record import rundir
from vkemu.record.live_log import LiveLog, Writer, open_log, to_stream
from vkemu.record.rundir import RunFolder
from vkemu.serving.address import Address, listen, parse_address, read_token
from vkemu.serving.limits import LIMITS, Limits, parse_limits
from vkemu.serving.sd_notify import sd_notify
from vkemu.serving.server import Overdue, Server
from vkemu.verdict import OF_VERDICT, UsageError, Verdict, telling

# What the host is when no scenario says it; a stand-in for the guests, which come from outside.
DEFAULTS = {"host": {"pages": 4096, "cpus": 8}}
STAND_IN = {"name": "outside", "memory": "1M", "vcpus": 1, "workloads": ["touch"]}
# --checks: what the oracle looks at.
CHECKING = {
    "none": (),
    "memory": tuple(c for c in DEFAULT_CHECKS if c in ("stale-translation", "free-frame",
                    "freed-access", "mapped-flag", "dirty", "read-only")),
    "all": DEFAULT_CHECKS,
}  # fmt: skip
assert set(CHECKING["memory"]) < set(CHECKS)


class Stopped(Exception):
    """The user has no patience with what is left."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scenario", nargs="?", help="host, policy, quirks and checks as in this one; not its guests"
    )
    parser.add_argument(
        "--socket", type=path, metavar="PATH", help="where to serve: short for --listen unix:PATH"
    )
    settings.add_arguments(parser)
    parser.add_argument("--guests", type=positive, metavar="N", help="shut down when N have gone")
    parser.add_argument(
        "--time-scale",
        type=between(1e-6, 1e6),
        default=1.0,
        metavar="X",
        help="virtual seconds to a real one, for what the kernel does by time (default: 1)",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="trio", help="the event loop")
    parser.add_argument("--runs", type=path, metavar="DIR", help="keep a run folder, with a log")
    parser.add_argument("--zstd", action="store_true", help="with --runs: events.ndjson.zst")
    parser.add_argument("--events", action="store_true", help="show the events on standard error")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON at the end")
    _add_serving(parser.add_argument_group("as a server (docs/serving.md)"))


def _add_serving(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="unix:PATH or tcp:HOST:PORT; may be given several times",
    )
    add("--token-file", type=path, metavar="FILE", help="what guests over TCP must know")
    add("--tls-cert", type=path, metavar="FILE", help="TLS over TCP, with this certificate")
    add("--tls-key", type=path, metavar="FILE", help="its key, if that is not in the same file")
    add("--anywhere", action="store_true", help="let --listen tcp: be no loopback address")
    add(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a bound: {', '.join(LIMITS)}",
    )
    add("--drain", type=between(0), default=0.0, metavar="S", help="time to end when told to stop")
    add(
        "--idle",
        type=between(0),
        default=math.inf,
        metavar="S",
        help="let go who asks nothing so long",
    )
    add(
        "--on-violation",
        choices=("guest", "stop"),
        default="guest",
        help="whom a broken invariant ends: the guest it is about (default), or the host",
    )
    add("--checks", choices=tuple(CHECKING), help="what the oracle looks at (default: all)")


def run(args: argparse.Namespace) -> int:
    options = Options(args)
    scenario = host_of(args)
    tell_bytes = 1 << 20  # of lines that standard error has not taken
    tell_seconds = 1.0  # for what it has not taken at the end
    with ExitStack() as stack:
        log = folder = None
        if args.runs is not None:
            folder = stack.enter_context(rundir.new_run(args.runs, scenario.name))
        if folder is not None or args.events:
            run = f"{scenario.name}/{scenario.policy}/serve"
            shown = sys.stderr if args.events else None
            log = stack.enter_context(open_log(run, folder, zstd=args.zstd, shown=shown))
        # Standard error may be a pipe that nobody reads, or whose reader has gone.
        teller = Writer(to_stream(sys.stderr), limit=tell_bytes)
        beside = None if log is None else log.beside
        tell = Teller(teller if beside is None else beside)
        if folder is not None:
            tell(f"logging to {folder.events_path(zstd=args.zstd)}")  # for log show --follow
        try:
            summary, failure = serve(scenario, args, options, log, tell)
            if log is not None:
                missing = log.close()
                if missing:
                    tell(missing)
                summary["dropped"] = log.dropped
            if folder is not None:
                keep(folder, scenario, summary, failure, tell)
        finally:
            teller.close(tell_seconds)
    status = OF_VERDICT[summary["verdict"]]
    with telling(status):
        report(summary, failure, as_json=args.json)
    return status


class Teller:
    """Lines for standard error, which the host never waits for."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def __call__(self, line: str) -> None:
        self.writer.offer(f"{line}\n".encode(errors="backslashreplace"))


def keep(
    folder: RunFolder, scenario: Scenario, summary: dict[str, Any], failure: str, tell: Teller
) -> None:
    """What is known of the run is not lost for a disk that is full."""
    try:
        folder.write_json(rundir.SCENARIO, msgspec.to_builtins(scenario))
        folder.write_json(rundir.SUMMARY, summary)
        if failure:
            folder.write_text(rundir.FAILURE, failure)
    except OSError as error:
        tell(f"{folder.path}: {error.strerror}: the run folder is not complete")


def report(summary: dict[str, Any], failure: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    else:
        if failure:
            print(failure)
        print(f"{summary['verdict']}: {summary['guests']} guests, {summary['steps']:,} steps")


def host_of(args: argparse.Namespace) -> Scenario:
    """The scenario with nobody in it."""
    laid_over = settings.of(args)
    if args.scenario is None:
        document: dict[str, Any] = {"name": "serve", **msgspec.to_builtins(DEFAULTS)}
        document["guest"] = [STAND_IN]
        for setting in laid_over:
            lay_over(document, read_setting(setting, Scenario))
        scenario = read(document, Path("vkemu serve"), served=True)
    else:
        scenario = load(args.scenario, laid_over)
        if not isinstance(scenario, Scenario):
            raise UsageError(f"{args.scenario}: a litmus test, expected a scenario")
    if args.checks is not None:
        scenario = msgspec.structs.replace(scenario, checks=CHECKING[args.checks])
    return msgspec.structs.replace(scenario, guest=())


class Options:
    """What the command line says about serving, understood. Raises UsageError."""

    def __init__(self, args: argparse.Namespace) -> None:
        try:
            self.addresses = [parse_address(text) for text in args.listen]
            self.limits: Limits = parse_limits(args.limit)
            self.token = b"" if args.token_file is None else read_token(args.token_file)
        except ValueError as error:
            raise UsageError(f"vkemu serve: {error}") from None
        if args.socket is not None:
            self.addresses.insert(0, Address(path=args.socket))
        if not self.addresses:
            raise UsageError("vkemu serve: nowhere to serve, expected --socket or --listen")
        for option in ("--token-file", "--tls-cert", "--anywhere"):
            if option in args.given and all(address.path is not None for address in self.addresses):
                raise UsageError(f"vkemu serve: {option}, expected with --listen tcp:HOST:PORT")
        for address in self.addresses:
            if address.path is None and not self.token:
                raise UsageError(f"vkemu serve: --listen {address}, expected with --token-file")
            if not address.loopback and not args.anywhere:
                raise UsageError(
                    f"vkemu serve: --listen {address}, expected a loopback address or --anywhere"
                )
        self.context = self._context(args)

    def _context(self, args: argparse.Namespace) -> ssl.SSLContext | None:
        if args.tls_cert is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(args.tls_cert, args.tls_key)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror or error.reason if isinstance(error, ssl.SSLError) else error
            raise UsageError(f"{args.tls_cert}: {why}, expected a certificate") from None
        return context


def serve(
    scenario: Scenario,
    args: argparse.Namespace,
    options: Options,
    log: LiveLog | None,
    tell: Teller,
) -> tuple[dict[str, Any], str]:
    """Serve to the end: the summary, and what went wrong if anything did."""
    most_descriptors()
    live = Live(time_scale=args.time_scale)
    machine = assemble(scenario, log, live)
    if args.checks == "none":
        machine.kernel.emit = unheard if log is None else log.emit
    server = Server(
        live,
        machine.kernel,
        tell,
        args.guests,
        limits=options.limits,
        token=options.token,
        on_violation=args.on_violation,
        blame=machine.oracle.blame,
        failures=FAILURES,
        forget=machine.oracle.forget,
        drain=args.drain,
        idle=args.idle,
    )
    verdict: Verdict = "pass"
    failure = ""
    try:
        on_backend(args.backend, Serving(server, options.addresses, options.context, log).main)
        if args.checks != "none" and not server.containment.violations:
            machine.oracle.finish()
    except OSError as error:
        raise UsageError(f"vkemu serve: {error}") from None
    except (Stopped, Overdue) as error:
        verdict, failure = "unknown", str(error)
    except FAILURES as error:
        verdict, failure = "fail", headline(error)
    finally:
        live.close()
    if violations := server.containment.violations:  # also if it did not end in time for them
        verdict, failure = "fail", "\n".join([*violations, failure]).rstrip()
    return summarize(scenario, machine, server, verdict, failure), failure


def unheard(name: str, /, *fields: Any) -> None:
    """--checks none, and no log."""


def most_descriptors() -> None:
    """As many as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Serving:
    """The server with its sockets and the signals that end it."""

    def __init__(
        self,
        server: Server,
        where: Path | list[Address],
        context: ssl.SSLContext | None = None,
        log: LiveLog | None = None,
    ) -> None:
        self.server = server
        self.addresses = [Address(path=where)] if isinstance(where, Path) else where
        self.context = context
        self.log = log
        self._failures: list[BaseException] = []

    async def main(self) -> None:
        async with AsyncExitStack() as stack:
            listeners = [
                await stack.enter_async_context(listen(address, self.context))
                for address in self.addresses
            ]
            group = await stack.enter_async_context(anyio.create_task_group())
            await group.start(self._until_signal)
            for listener in listeners:
                self.server.tell(f"serving at {listener.address}")
            sd_notify("READY=1")
            try:
                await self.server.run(*listeners)
            except (Stopped, Overdue, *FAILURES) as error:
                self._failures.append(error)
            sd_notify("STOPPING=1")
            group.cancel_scope.cancel()
        for failure in self._failures:
            raise failure

    async def _until_signal(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        told = 0
        with anyio.open_signal_receiver(*wanted) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    if self.log is not None:
                        self.log.reopen()
                    continue
                told += 1
                if told == 1:
                    sd_notify("STOPPING=1")
                    self.server.shutdown()
                else:
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
        "counts": dict(sorted(server.counts.items())),
        "steps": server.live.steps,
        "virtual_ns": server.live.clock,
        "counters": machine.counters(),
    }
