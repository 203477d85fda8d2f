"""What goes wrong inside a live host, and whom it ends.

A violation that the oracle finds, a panic, a bug of vkemu's: each is met in the midst of a step of
some kernel thread. If that was at work for a guest, or the oracle says whose memory it is, the
guest's session ends, its process is killed, and the host goes on. What its thread held when it
failed is gone with it; should others wait for that, the host ends after all, as hung.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from vkprotocol.effects import Thread
from vkprotocol.errno import Errno

from vkhost.kern.lwp import Proc
from vkhost.kern.panic import Panic
from vkhost.kern.proc import lwp_reap
from vkhost.pc64.cpu import Cpu
from vkhost.vm.vm import KERN_FAILURE

if TYPE_CHECKING:
    from vkemu.executors.hung_task import HungTasks
    from vkemu.executors.live import Live
    from vkemu.serving.host_session import HostSession
    from vkhost.kernel import Kernel

# The names of the threads, and the pids, that a violation is about.
Blame: TypeAlias = Callable[[Exception], tuple[Sequence[str], Sequence[Any]]]
OnViolation: TypeAlias = Literal["guest", "stop"]


class Contained(Protocol):
    """What is needed of a server."""

    kernel: Kernel
    live: Live
    hung_tasks: HungTasks
    sessions: dict[HostSession, None]
    counts: Counter[str]
    tell: Callable[[str], None]

    def bug(self, who: str, error: Exception) -> str: ...


class Containment:
    """Listens to the events of the server's kernel, before the oracle, and to threads that fail.

    `failures`: what is about the kernels, and no bug of ours. `violations`: the first of each
    guest, in a line.
    """

    def __init__(
        self,
        server: Contained,
        on_violation: OnViolation,
        blame: Blame,
        failures: tuple[type[BaseException], ...],
    ) -> None:
        self.server = server
        self.kernel = server.kernel
        self.live = server.live
        self.on_violation = on_violation
        self.violations: list[str] = []
        self._blame = blame
        self._failures = failures
        self._emit = server.kernel.emit
        self.live.on_failure = self.on_failure
        if on_violation == "guest":
            self.kernel.emit = self.emit
            self.kernel.on_leak = self.on_leak

    def emit(self, name: str, /, *fields: Any) -> None:
        """The oracle's judgement ends whom it is about, and not the step in which it falls."""
        try:
            self._emit(name, *fields)
        except AssertionError as error:
            if not isinstance(error, self._failures):
                raise
            self._violated(error)

    def _violated(self, error: AssertionError) -> None:
        self.server.counts["violations"] += 1
        line = first_line(error)
        named = self._named(error)
        for proc in named:
            session = self._session_of(proc)
            if session is not None and not session.reason:
                self._note(f"{proc.name}: {line}", f"{proc.name}: {error}")
                session.hang_up(line, Errno.EIO)
        if not named:
            self._note(line, str(error))

    def _note(self, line: str, text: str) -> None:
        violations = 100  # that are told
        if len(self.violations) < violations:
            self.violations.append(line)
            self.server.tell(text)

    def _named(self, error: Exception) -> list[Proc]:
        actors, pids = self._blame(error)
        cpus = {f"fault{cpu.id}": cpu.lwp for cpu in self.kernel.cpus}
        found = []
        for proc in self.kernel.procs:
            names = {f"lwp {proc.name}.{lwp.tid}" for lwp in proc.lwps}
            names |= {name for name, lwp in cpus.items() if lwp is not None and lwp.proc is proc}
            if proc.pid in pids or any(actor in names for actor in actors):
                found.append(proc)
        return found

    def on_leak(self, proc: Proc, message: str) -> None:
        """What would have been a panic of the host at this process's exit (W22)."""
        self.server.counts["violations"] += 1
        line = f"{proc.name}: host panic: {message}"
        self._note(line, line)

    def on_failure(self, thread: Thread) -> bool:
        """A kernel thread has failed. True: it was at work for a guest, which ends."""
        error = thread.error
        verdict = isinstance(error, self._failures)
        if not isinstance(error, Exception) or (verdict and self.on_violation == "stop"):
            return False
        cpu = next((cpu for cpu in self.kernel.cpus if cpu.worker is thread), None)
        proc = self._served_by(thread, cpu)
        if proc is None:
            return False
        if verdict:
            why = f"host panic: {error}" if isinstance(error, Panic) else first_line(error)
            self.server.counts["violations"] += 1
            self._note(f"{proc.name}: {why}", f"{proc.name}: {why}")
        else:
            why = self.server.bug(proc.name, error)
        session = self._session_of(proc)
        if session is not None:
            session.hang_up(why, Errno.EIO)
        if cpu is not None:
            self._new_worker(cpu)
        else:
            self._reap(proc, thread)
        return True

    def _served_by(self, thread: Thread, cpu: Cpu | None) -> Proc | None:
        if cpu is not None:
            return None if cpu.lwp is None else cpu.lwp.proc
        for proc in self.kernel.procs:
            if any(lwp.thread_id == thread.tid for lwp in proc.lwps):
                return proc
        return None

    def _session_of(self, proc: Proc) -> HostSession | None:
        return next((s for s in self.server.sessions if s.guest is proc), None)

    def _new_worker(self, cpu: Cpu) -> None:
        """The fault it was at fails."""
        self.kernel.start_worker(cpu)
        assert cpu.worker is not None
        self.server.hung_tasks.served[cpu.fault_results] = cpu.worker
        if cpu.lwp is not None:
            account = self.live.run_queue.of.get(cpu.lwp.thread_id)
            if account is not None:
                self.live.charge(cpu.worker, account)
        self.live.post(cpu.fault_results, KERN_FAILURE)

    def _reap(self, proc: Proc, thread: Thread) -> None:
        lwp = next(lwp for lwp in proc.lwps if lwp.thread_id == thread.tid)
        lwp.thread_id = -1  # if this fails too, it is the host's
        self.live.spawn(f"reap {proc.name}.{lwp.tid}", lwp_reap(lwp))


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
