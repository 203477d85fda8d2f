"""`vkemu guest`: one vkernel as a process of its own, with the options of vkernel(7)."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from vkprotocol.limits import NAME_CHARS, SCHEMA
from vkprotocol.messages import Credentials, Hello
from vkprotocol.param import PAGE_SIZE, atop

from vkemu.commands import reach
from vkemu.commands.arguments import path, seconds, setting
from vkemu.commands.reach import Reach
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.deadlock import Deadlock
from vkemu.executors.live import Live
from vkemu.launch import names
from vkemu.launch.assemble import uses_disk, vkernel_arguments
from vkemu.launch.draw import drawn
from vkemu.launch.scenario import load, size_bytes
from vkemu.serving.guest_session import GuestSession, run_guest
from vkemu.verdict import Status, UsageError, one_of, telling
from vkguest.kern.errors import BootError, GuestPanic, HostGone
from vkguest.kern.kern_exec import Program
from vkguest.kernel import Vkernel
from vkguest.vkernel64.image import create_image
from vkguest.vkernel64.options import OptionError, Options, add_options, options_of
from vkguest.vkernel64.port import MailboxPort
from vkguest.vm.vm_pageout import VM_PAGES_NEEDED

IMAGE_FOLDER = Path("/var/vkernel")
PATIENCE_SECONDS = 300.0  # a RUN may take long, and so may a fault when memory is short


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket", required=True, metavar="ADDRESS", help="of the host: a path, or tcp:HOST:PORT"
    )
    reach.add_arguments(parser)
    parser.add_argument(
        "--patience",
        type=seconds,
        default=PATIENCE_SECONDS,
        metavar="S",
        help="how long a host may owe an answer (default: 300)",
    )
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="WORKLOAD",
        dest="workloads",
        help="start a process with this named program, as touch:pages=4,rounds=2",
    )
    parser.add_argument(
        "--program",
        action="append",
        default=[],
        type=path,
        metavar="FILE",
        dest="programs",
        help="start a process with the program in this file, one instruction a line",
    )
    parser.add_argument("--name", default="vk0", help="what the host calls it (default: vk0)")
    parser.add_argument(
        "--scenario",
        metavar="FILE",
        help="be the [[guest]] --name of this one: its memory, vCPUs and programs",
    )
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="lay a setting over the scenario",
    )
    parser.add_argument("--swap", default="0p", metavar="SIZE", help="end of memory used as swap")
    parser.add_argument(
        "--host-image", action="store_true", help="let the host make the memory image"
    )
    parser.add_argument("--backend", choices=BACKENDS, default="trio", help="the event loop")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_options(parser.add_argument_group("options of vkernel(7)"))


def run(args: argparse.Namespace) -> int:
    if not args.name or len(args.name) > NAME_CHARS:
        raise UsageError(f"vkemu guest: --name of 1 to {NAME_CHARS} characters expected")
    options, arguments = asked_for(args) if args.scenario is None else in_scenario(args)
    for line in options.warnings:
        tell(line)
    there = Reach("vkemu guest", args.socket, args)
    live = Live(time_scale=1.0)
    with pidfile(options.pidfile):
        guest = Guest(live, there, args, options, arguments)
        try:
            on_backend(args.backend, guest.main)
        except HostGone as gone:
            guest.ending = str(gone)
        except GuestPanic as panic:
            guest.ending = f"panic: {panic}"
        except Deadlock as deadlock:
            guest.ending = guest.asleep() or str(deadlock)
        except OSError as error:
            raise UsageError(f"vkemu guest: {error}") from None
        finally:
            live.close()
    return guest.report(as_json=args.json)


def asked_for(args: argparse.Namespace) -> tuple[Options, dict[str, Any]]:
    """What the command line says, and what that is of a Vkernel's arguments."""
    try:
        options = options_of(args)
    except OptionError as error:
        raise UsageError(f"vkemu guest: {error}") from None
    swap = checked("--swap", size_bytes, args.swap)
    if swap % PAGE_SIZE or swap >= options.memory:
        raise UsageError(
            f"vkemu guest: --swap {args.swap}, expected a multiple of 4096 bytes, less than -m"
        )
    programs = [checked("--run", names.check_workload, spec) for spec in args.workloads]
    programs += [program_file(path) for path in args.programs]
    return options, {
        "memory_pages": atop(options.memory),
        "programs": programs,
        "vcpus": options.ncpus,
        "swap_pages": atop(swap),
        "prezero": options.prezero,
    }


def in_scenario(args: argparse.Namespace) -> tuple[Options, dict[str, Any]]:
    """The same of the [[guest]] of that name."""
    scenario = load(args.scenario, args.settings)
    scenario = drawn(scenario, scenario.seed)
    guest = next((guest for guest in scenario.guest if guest.name == args.name), None)
    if guest is None:
        known = one_of(args.name, [guest.name for guest in scenario.guest])
        raise UsageError(f"{args.scenario}:guest: no {args.name!r}, {known}")
    if uses_disk(guest):
        raise UsageError(
            f"{args.scenario}: guest {guest.name} has a disk, expected none in a process of its own"
        )
    options = Options(
        memory=size_bytes(guest.memory),
        ncpus=guest.vcpus,
        pidfile=args.pidfile,
        verbose=args.verbose,
    )
    return options, vkernel_arguments(guest, scenario.blobs)


class Guest:
    """The vkernel, its memory image, and its conversation with the host."""

    def __init__(
        self,
        live: Live,
        there: Reach,
        args: argparse.Namespace,
        options: Options,
        arguments: dict[str, Any],
    ) -> None:
        self.live = live
        self.there = there
        self.args = args
        # A descriptor goes over a unix socket and nowhere else.
        self.takes_image = not args.host_image and there.address.path is not None
        self.options = options
        self.ending = ""  # why, when it is not the ordinary end
        credentials = Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())
        self.hello = Hello(
            schema=SCHEMA,
            name=args.name,
            credentials=credentials,
            memory=options.memory,
            vcpus=options.ncpus,
            image=self.takes_image,
            token=there.token,
        )
        self.session: GuestSession | None = None
        self.vkernel: Vkernel | None = None
        self._arguments = arguments

    async def main(self) -> None:
        stream = await self.there.connect()
        session = self.session = GuestSession(self.live, stream, self.hello, self.args.patience)
        try:
            reply = await self._greet(session)
            self.vkernel = self._vkernel(session, reply.fd, reply.proc)
        except BaseException:
            await session.close()
            raise
        await run_guest(self.live, session, self.vkernel)

    async def _greet(self, session: GuestSession) -> Any:
        if not self.takes_image:
            return await session.greet()
        pages = atop(self.options.memory)
        folder = IMAGE_FOLDER if os.access(IMAGE_FOLDER, os.W_OK) else Path(tempfile.gettempdir())
        image = create_image(pages, folder, str(os.getpid()))
        try:
            return await session.greet(image)
        finally:
            os.close(image)  # the host has its own descriptor, or does not want one

    def _vkernel(self, session: GuestSession, image_fd: int, proc: int) -> Vkernel:
        try:
            return Vkernel(
                lambda cpuid: MailboxPort(session.requests[cpuid], session.replies[cpuid]),
                spawn=self.live.spawn,
                emit=self._emit,
                name=self.args.name,
                proc=proc,
                image_fd=image_fd,
                **self._arguments,
            )
        except ValueError as error:
            raise BootError(str(error)) from None

    def _emit(self, name: str, *fields: Any) -> None:
        if name == "console":
            tell(str(fields[-1]))
        elif self.options.verbose:
            tell(" ".join([name, *map(str, fields)]))

    def asleep(self) -> str:
        """Which processes sleep for ever, and on what."""
        if self.vkernel is None:
            return ""
        sleepers = [
            f"process {lp.proc.pid} ({lp.proc.program.name}) sleeps on {wchan}"
            for wchan, lwps in sorted(self.vkernel.sched.sleepq.items())
            for lp in lwps
            if wchan != VM_PAGES_NEEDED
        ]
        return "deadlock: " + "; ".join(sleepers) if sleepers else ""

    def report(self, *, as_json: bool) -> int:
        """Print what became of the processes; the exit status."""
        vkernel = self.vkernel
        results = {} if vkernel is None else dict(sorted(vkernel.results.items()))
        wrong = [] if vkernel is None else vkernel.failed
        ending = self.ending or (vkernel and (vkernel.boot_error or vkernel.killed)) or ""
        if as_json:
            summary = {
                "name": self.args.name,
                "ending": ending or None,
                "results": {pid: result._asdict() for pid, result in results.items()},
                "failed": wrong,
                "environment": self.options.environment,
            }
            lines = [msgspec.json.encode(summary).decode()]
        else:
            lines = [
                f"{pid} {result.comm} status {result.status} registers "
                + ("killed" if result.checksum is None else f"{result.checksum:016x}")
                for pid, result in results.items()
            ]
        for found in wrong:
            tell(str(found))
        if ending:
            tell(f"vkemu guest: {ending}")
        status = Status.UNKNOWN if ending else Status.PASS
        if wrong or ending.startswith(("panic", "deadlock")):
            status = Status.VIOLATION
        with telling(status):
            print(*lines, sep="\n", end="\n" if lines else "")
        return status


def checked(option: str, check: Any, text: str) -> Any:
    try:
        return check(text)
    except ValueError as error:
        raise UsageError(f"vkemu guest: {option} {text}: {error}") from None


def program_file(path: Path) -> Program:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: {why}, expected a program") from None
    try:
        return Program(path.stem, names.check_program(text))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


@contextmanager
def pidfile(name: str | None) -> Iterator[None]:
    """-p: the file stays open and locked while the vkernel runs (init.c:writepid), then goes."""
    if name is None:
        yield
        return
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"Failed to create pidfile: {name}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise UsageError(
            f"Failed to lock pidfile, vkernel already running: {name}: {error.strerror}"
        ) from None
    try:
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        yield
        Path(name).unlink(missing_ok=True)
    finally:
        os.close(fd)


def tell(line: str) -> None:
    """Standard output is for results."""
    print(line, file=sys.stderr, flush=True)
