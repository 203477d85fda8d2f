"""A host that serves guests from outside: sessions on one side, the vkernel processes on the other.

DragonFly has no such thing: there a vkernel is a process, and this is its fork and exec.

Whatever goes wrong is somebody's: a peer's, who is told; a guest's, whose session and process end;
or the host's own, and only that ends the host (`containment.py`).
"""

from __future__ import annotations

import os
import resource
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup
from vkprotocol.effects import Mailbox
from vkprotocol.errno import Errno
from vkprotocol.messages import Hello

from vkemu.executors.hung_task import HungTasks
from vkemu.executors.live import Live
from vkemu.executors.run_queue import Account
from vkemu.serving.address import Listener
from vkemu.serving.containment import Blame, Containment, OnViolation
from vkemu.serving.host_session import Guest, HostSession
from vkemu.serving.image import memory_image
from vkemu.serving.limits import Limits
from vkemu.serving.session import Outlet, Refused, one_line
from vkemu.serving.status import status_text
from vkemu.serving.transport import Broken, Stream
from vkhost.kern.lwp import Proc
from vkhost.kern.panic import Panic
from vkhost.kern.proc import killproc, proc_create
from vkhost.kern.syscall import proc_start
from vkhost.kernel import Kernel

STOP_SECONDS: Final = 5.0  # for the processes of the guests to end, once they were told to


class Overdue(Exception):
    """The host was to stop, and something would not."""


class Server:
    """The `Host` of every session, for one kernel on one live execution.

    `tell` gets one line for every guest that leaves; it may not wait. With `guests`, the server
    shuts down when so many have come and gone. `drain`: seconds that guests have to end by
    themselves when it is told to stop. `idle`: seconds without a request, and none unanswered,
    after which a guest is let go.
    """

    name = "vkemu"

    def __init__(
        self,
        live: Live,
        kernel: Kernel,
        tell: Callable[[str], None],
        guests: int | None = None,
        *,
        limits: Limits | None = None,
        token: bytes = b"",
        on_violation: OnViolation = "stop",
        blame: Blame = lambda error: ((), ()),
        failures: tuple[type[BaseException], ...] = (Panic, AssertionError),
        forget: Callable[[int], None] = lambda pid: None,
        drain: float = 0.0,
        idle: float = float("inf"),
    ) -> None:
        self.live = live
        self.kernel = kernel
        kernel.goes_on = True
        self.tell = tell
        self.guests = guests
        self.limits = limits or Limits()
        self.token = token
        self.drain = drain
        self.idle = idle
        self.sessions: dict[HostSession, None] = {}
        self.served = 0
        self.counts: Counter[str] = Counter()  # what happened so far
        self.draining = False
        self._forget = forget  # told of each process that is reaped
        self._shutdown = Mailbox("shutdown")
        self._group: TaskGroup | None = None
        self._listeners: Sequence[Listener] = ()
        self._ended = anyio.Event()
        self._departed = anyio.Event()
        self._names: dict[str, int] = {}  # how often each was used, of the latest NAMES
        self.hung_tasks = live.hung_tasks = HungTasks(live)
        self.hung_tasks.fed.add(self._shutdown)
        for cpu in kernel.cpus:
            if cpu.worker is not None:
                self.hung_tasks.served[cpu.fault_results] = cpu.worker
        self.containment = Containment(self, on_violation, blame, failures)

    async def run(self, *listeners: Listener) -> None:
        """Serve until `shutdown`. Raises what the host's own threads raise: a panic, a violation.

        Without a listener, streams come by `serve`.
        """

        async def until_shutdown() -> None:
            await self._shutdown.recv()

        self.live.spawn("init", until_shutdown())
        failure: Exception | None = None
        async with anyio.create_task_group() as group, anyio.create_task_group() as around:
            self._group = group
            around.start_soon(self._look)
            with self.live.source():
                self._listeners = listeners
                if self.draining:  # told so before it began
                    group.start_soon(self._stop)
                for listener in listeners:
                    group.start_soon(self._accept, listener)
                try:
                    await self.live.run()
                except Exception as error:
                    failure = error  # not yet: the guests shall hear of it
                self._ended.set()
                self._dismiss("the host is down" if failure else "", Errno.ENXIO if failure else 0)
            around.cancel_scope.cancel()
        self._group = None
        if failure is not None:
            raise failure

    def shutdown(self) -> None:
        """Take nobody any more; let those who are here end within `drain` seconds; then say goodbye
        to them; `run` returns when their processes are gone, or STOP_SECONDS later."""
        if not self.draining:
            self._refuse_newcomers()
            if self._group is not None and not self.live.over:
                self._group.start_soon(self._stop)

    async def _stop(self) -> None:
        with anyio.move_on_after(self.drain):
            while self.drain and any(session.greeted for session in self.sessions):
                self._departed = anyio.Event()
                await self._departed.wait()
        self._dismiss("the host shuts down", 0)
        if not self.live.over:
            self.live.post(self._shutdown, None)
        with anyio.move_on_after(STOP_SECONDS) as overdue:
            await self._ended.wait()
        if overdue.cancelled_caught:
            left = self.live.deadlock()
            self.live.stop(Overdue(f"not ended {STOP_SECONDS:g} s after it was told to: {left}"))

    def _dismiss(self, reason: str, errno: int) -> None:
        self._refuse_newcomers()
        for session in list(self.sessions):
            session.hang_up(reason, errno)

    def _refuse_newcomers(self) -> None:
        self.draining = True
        for listener in self._listeners:
            listener.close()

    # Peers.

    async def _accept(self, listener: Listener) -> None:
        assert self._group is not None
        while (raw := await listener.accept()) is not None:
            self.counts["connections"] += 1
            self._group.start_soon(self._welcome, listener, raw)

    async def _welcome(self, listener: Listener, raw: socket.socket) -> None:
        try:
            with anyio.fail_after(STOP_SECONDS):
                stream = await listener.stream(raw)
        except (Broken, TimeoutError) as error:
            raw.close()
            self.counts["broken"] += 1
            self.tell(f"a peer: {error or 'no handshake in time'}")
            return
        await self.serve(stream, b"" if listener.trusted else self.token)

    async def serve(self, stream: Stream, token: bytes = b"") -> None:
        """One guest, from its Hello to the end of its process."""
        session = HostSession(self.live, stream, self, token)
        session.unsent_bytes = self.limits.unsent
        session.outstanding = self.limits.outstanding
        self.sessions[session] = None
        self._make_room()
        if self.draining:
            session.hang_up("the host shuts down")
        try:
            line = await session.run()
        finally:
            del self.sessions[session]
            self._departed.set()
        self.counts["sessions"] += 1
        if line:
            self.tell(line)
        self.served += session.greeted
        if self.guests is not None and self.served >= self.guests:
            self.shutdown()

    def _make_room(self) -> None:
        """Who has not said Hello may keep nobody out: the one that is silent longest goes."""
        silent = [session for session in self.sessions if not session.greeted]
        most = min(self.limits.peers, descriptors() // 4)
        if len(silent) > most:
            self.counts["crowded out"] += 1
            silent[0].hang_up("too many peers have not said Hello", Errno.EAGAIN)

    async def _look(self) -> None:
        look_seconds = 1.0
        while True:
            await anyio.sleep(look_seconds)
            if self.idle < float("inf"):
                now = anyio.current_time()
                for session in list(self.sessions):
                    quiet = session.greeted and not session.connection.unanswered
                    if quiet and now - session.heard_at > self.idle:
                        session.hang_up(f"idle for {self.idle:g} s", Errno.ETIMEDOUT)

    # What a session asks of a host.

    def admit(self, hello: Hello, image: int | None, session: HostSession) -> Proc:
        try:
            return self._admit(hello, image, session)
        except Refused:
            self.counts["refused"] += 1
            raise

    def _admit(self, hello: Hello, image: int | None, session: HostSession) -> Proc:
        try:
            self._check(hello)
        except Refused:
            if image is not None:
                os.close(image)
            raise
        self._reap()
        name = self._unique(hello.name)
        vnode = memory_image(hello, name, image, lambda why: session.hang_up(why, Errno.EIO))
        proc = proc_create(self.kernel, name, vnode, hello.vcpus)
        if proc is None:
            vnode.close()
            raise Refused(Errno.EAGAIN, f"fewer than {hello.vcpus} idle CPUs")
        proc.max_vmspaces, proc.max_proc_mmap = self.limits.vmspaces, self.limits.entries
        account = Account(name, self.limits.share)
        for lwp in proc.lwps:
            lwp.replies = Outlet(lwp.replies.key, session.say)
            self.hung_tasks.fed.add(lwp.requests)
            if lwp.cpu.worker is not None:
                self.live.charge(lwp.cpu.worker, account)
        for thread in proc_start(proc):
            self.live.charge(thread, account)
        session.account = account
        self.counts["guests"] += 1
        return proc

    def _check(self, hello: Hello) -> None:
        limits = self.limits
        if self.draining:
            raise Refused(Errno.ENXIO, "the host shuts down")
        spare_descriptors = 32  # listeners, logs, what a library opens
        per_guest = 2  # descriptors: socket and image
        most = min(limits.guests, (descriptors() * 3 // 4 - spare_descriptors) // per_guest)
        if sum(session.greeted for session in self.sessions) >= most:
            raise Refused(Errno.EPROCLIM, f"{most} guests are all this host takes")
        if hello.memory > limits.memory:
            raise Refused(Errno.ENOMEM, f"{hello.memory} bytes, {limits.memory} are a guest's most")
        if hello.vcpus > limits.vcpus:
            raise Refused(Errno.EAGAIN, f"{hello.vcpus} vCPUs, {limits.vcpus} are a guest's most")

    def release(self, guest: Guest) -> None:
        assert isinstance(guest, Proc)
        self.hung_tasks.fed.difference_update(lwp.requests for lwp in guest.lwps)
        if self.live.over:
            return
        killer = self.live.spawn(f"kill {guest.name}", killproc(guest))
        account = self.live.run_queue.of.get(guest.lwps[0].thread_id)
        if account is not None:
            self.live.charge(killer, account)

    def status(self, form: str) -> bytes:
        return status_text(self, form)

    def bug(self, who: str, error: Exception) -> str:
        self.counts["bugs"] += 1
        line = one_line(f"a bug in vkemu itself: {type(error).__name__}: {error}")
        trace = "".join(traceback.format_exception(error)).rstrip()
        self.tell(f"{trace}\nvkemu: {who}: the above is a bug in vkemu itself")
        return line

    def _reap(self) -> None:
        """wait4(2): forget the dead but the last, so that no pid comes twice in a row."""
        procs = self.kernel.procs
        for proc in procs[:-1]:
            if proc.zombie:
                self._forget(proc.pid)
                for lwp in proc.lwps:
                    lwp.cpu.forget_accesses()
        procs[:-1] = [proc for proc in procs[:-1] if not proc.zombie]

    def _unique(self, name: str) -> str:
        """Names name pmaps and go into events: a second `vk0` is `vk0-2`, also after the first."""
        name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in name)
        name = name or "guest"
        taken = {proc.name for proc in self.kernel.procs}
        count = self._names.pop(name, 0) + 1
        while (unique := name if count == 1 else f"{name}-{count}") in taken:
            count += 1
        self._names[name] = count
        names = 4096
        if len(self._names) > names:
            del self._names[next(iter(self._names))]
        return unique


def descriptors() -> int:
    """As many as this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
