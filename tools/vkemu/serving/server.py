"""A host that serves guests from outside: sessions on one side, the vkernel processes on the other.

DragonFly has no such thing: there a vkernel is a process, and this is its fork and exec.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable

import anyio
from anyio.abc import SocketListener, TaskGroup
from vkprotocol.effects import Mailbox
from vkprotocol.errno import Errno
from vkprotocol.messages import Hello

from vkemu.executors.hung_task import HungTasks
from vkemu.executors.live import Live
from vkemu.serving.session import GUESTS, Guest, HostSession, Outlet, Refused
from vkemu.serving.transport import Stream, accept
from vkhost.kern.lwp import Proc
from vkhost.kern.proc import killproc, proc_create, proc_start
from vkhost.kernel import Kernel
from vkhost.vm.vnode_pager import FileVnode


class Server:
    """The `Host` of every session, for one kernel on one live execution.

    `tell` gets one line for every guest that leaves. With `guests`, the server shuts down when so
    many have come and gone.
    """

    name = "vkemu"

    def __init__(
        self, live: Live, kernel: Kernel, tell: Callable[[str], None], guests: int | None = None
    ) -> None:
        self.live = live
        self.kernel = kernel
        self.tell = tell
        self.sessions: list[HostSession] = []
        self.served = 0
        self.guests = guests
        self._names: dict[str, int] = {}
        self._shutdown = Mailbox("shutdown")
        self.hung_tasks = live.hung_tasks = HungTasks(live)
        self.hung_tasks.fed.add(self._shutdown)
        self._stopping: anyio.CancelScope | None = None

    async def run(self, listener: SocketListener | None = None) -> None:
        """Serve until `shutdown`. Raises what the kernel's threads raise: a panic, a violation.

        Without a listener, streams come by `serve`.
        """

        async def until_shutdown() -> None:
            await self._shutdown.recv()

        self.live.spawn("init", until_shutdown())
        self._stopping = anyio.CancelScope()
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            with self.live.source():
                if listener is not None:
                    group.start_soon(self._accept, listener, group)
                try:
                    await self.live.run()
                except Exception as error:
                    failure = error  # not yet: the guests shall hear of it
                self._dismiss("the host is down" if failure else "", Errno.ENXIO if failure else 0)
        if failure is not None:
            raise failure

    def shutdown(self) -> None:
        """Say goodbye to everybody; `run` returns when their processes are gone."""
        self._dismiss("the host shuts down", 0)
        self.live.post(self._shutdown, None)

    def _dismiss(self, reason: str, errno: int) -> None:
        assert self._stopping is not None
        self._stopping.cancel()
        for session in self.sessions:
            session.hang_up(reason, errno)

    async def _accept(self, listener: SocketListener, group: TaskGroup) -> None:
        assert self._stopping is not None
        with self._stopping:
            while True:
                group.start_soon(self.serve, await accept(listener))

    async def serve(self, stream: Stream) -> None:
        """One guest, from its Hello to the end of its process."""
        session = HostSession(self.live, stream, self)
        self.sessions.append(session)
        try:
            self.tell(await session.run())
        finally:
            self.sessions.remove(session)
        self.served += session.guest is not None
        if self.guests is not None and self.served >= self.guests:
            self.shutdown()

    # What a session asks of a host.

    def admit(self, hello: Hello, image: int | None, session: HostSession) -> Proc:
        if len(self.sessions) > GUESTS:
            _close(image)
            raise Refused(Errno.EPROCLIM, f"{GUESTS} guests are all this host takes")
        self._reap()
        vnode = memory_image(hello, image, session)
        proc = proc_create(self.kernel, self._unique(hello.name), vnode, hello.vcpus)
        if proc is None:
            vnode.close()
            raise Refused(Errno.EAGAIN, f"fewer than {hello.vcpus} idle CPUs")
        for lwp in proc.lwps:
            lwp.replies = Outlet(lwp.replies.key, session.say)
            self.hung_tasks.fed.add(lwp.requests)
        proc_start(proc)
        return proc

    def release(self, guest: Guest) -> None:
        assert isinstance(guest, Proc)
        self.hung_tasks.fed.difference_update(lwp.requests for lwp in guest.lwps)
        self.live.spawn(f"kill {guest.name}", killproc(guest))

    def _reap(self) -> None:
        """wait4(2): forget the dead but the last, so that no pid comes twice in a row."""
        procs = self.kernel.procs
        procs[:-1] = [proc for proc in procs[:-1] if not proc.zombie]

    def _unique(self, name: str) -> str:
        """Names name pmaps and go into events: a second `vk0` is `vk0-2`, also after the first."""
        name = "".join(c if c.isalnum() or c in "_-" else "-" for c in name) or "guest"
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else self._unique(f"{name}-{count}")


class MemoryImage(FileVnode):
    """A guest's memory as a file it may have made itself.

    The file can be truncated or sealed under us, or its disk fill up: then this guest's memory is
    lost and it is told so, but the host goes on.
    """

    def __init__(self, session: HostSession, name: str, fd: int, size: int) -> None:
        super().__init__(f"image.{name}", fd, size)
        self.unlinked = True
        self.session = session

    def pread(self, offset: int, count: int) -> bytes:
        try:
            return super().pread(offset, count)
        except OSError as error:
            self._lost(error)
            return b""

    def pwrite(self, offset: int, content: bytes) -> None:
        try:
            super().pwrite(offset, content)
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        self.session.hang_up(f"the memory image: {error.strerror}", Errno.EIO)


def memory_image(hello: Hello, fd: int | None, session: HostSession) -> MemoryImage:
    """The guest's memory: the descriptor it sent, or a sparse file without a name made here."""
    if fd is None:
        fd = os.memfd_create(f"vkernel {hello.name}", os.MFD_CLOEXEC)
        os.ftruncate(fd, hello.memory)
    status = os.fstat(fd)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    refusal = None
    if not stat.S_ISREG(status.st_mode):
        refusal = Refused(Errno.ENODEV, "the memory image is no regular file")
    elif flags & os.O_ACCMODE != os.O_RDWR:
        refusal = Refused(Errno.EACCES, "the memory image is not open for reading and writing")
    elif status.st_size < hello.memory:
        text = f"the memory image has {status.st_size} bytes, not {hello.memory}"
        refusal = Refused(Errno.EINVAL, text)
    if refusal is not None:
        _close(fd)
        raise refusal
    return MemoryImage(session, hello.name, fd, hello.memory)


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
