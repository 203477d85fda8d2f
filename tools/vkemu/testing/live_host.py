"""A live host for race tests: kernel, oracle and guests in the event loop of the test."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

import anyio
from vkprotocol.effects import Mailbox, Thread

from vkemu.executors.live import Live
from vkemu.launch.assemble import Machine
from vkemu.launch.outcome import FAILURES, WrongMemory
from vkemu.launch.scenario import Guest, Scenario, read
from vkguest.kern.proc import Result
from vkguest.kernel import Vkernel
from vkhost.kern.proc import idle_cpus, killproc
from vkhost.kernel import Kernel

HOST: Final = {"pages": 600, "cpus": 4}
GUEST: Final = {"memory": "2M", "vcpus": 1, "workloads": ["touch"]}
# Decoded with the host, so that its mistakes are told as a scenario's are; it never boots.
STAND_IN: Final = {"name": "none", **GUEST}
WHERE: Final = "vkhost"


class BootFailed(AssertionError):
    """A guest did not come up."""


class LiveHost:
    """One host kernel on a live executor. `run` belongs in a task; `boot` starts guests.

    `options` are a scenario's policy, mutants, checks and quirks, and what `[host]` may have.
    """

    def __init__(
        self,
        policy: str = "pv_entry",
        *,
        mutants: Sequence[str] = (),
        checks: Sequence[str] = (),
        quirks: dict[str, Any] | None = None,
        time_scale: float = 1.0,
        **host: Any,
    ) -> None:
        document = {
            "policy": policy,
            "mutants": list(mutants),
            "checks": list(checks),
            "quirks": quirks or {},
            "host": {**HOST, **host},
        }
        self._document = document
        self.scenario = self._read(STAND_IN)
        self.live = Live(time_scale=time_scale)
        self.machine = Machine(_hosting(self.scenario), self.live.spawn)
        self.guests: list[LiveGuest] = []
        self.error: BaseException | None = None  # what ended the run
        self.told = False  # the test has met `error`
        self._shutdown = Mailbox("shutdown")
        self._stopping = anyio.CancelScope()
        self._ended = anyio.Event()

    @property
    def kernel(self) -> Kernel:
        return self.machine.kernel

    def _read(self, guest: dict[str, Any]) -> Scenario:
        """Checked like a scenario file with this one guest."""
        from pathlib import Path

        return read({**self._document, "guest": [guest]}, Path(WHERE))

    async def run(self) -> None:
        """Until `aclose`, or a violation; that is kept for the test and does not cancel it."""

        async def until_shutdown() -> None:
            await self._shutdown.recv()

        self.live.spawn("init", until_shutdown())
        try:
            with self._stopping, self.live.source():
                await self.live.run()
        except FAILURES as error:
            self.error = error
        finally:
            if not self.live.over:
                self.live.stop()
            self.live.close()
            self._ended.set()

    def boot(self, name: str | None = None, **options: Any) -> LiveGuest:
        """A guest: `options` are those of a scenario's [[guest]]. Await it for its results."""
        name = f"g{len(self.guests) + 1}" if name is None else name
        (guest,) = self._read({"name": name, **GUEST, **options}).guest
        if self.error is not None:
            self.told = True
            raise self.error
        idle = len(idle_cpus(self.kernel))
        if idle < guest.vcpus:
            raise ValueError(f"{name}: {guest.vcpus} vCPUs and {idle} idle CPUs: a larger `cpus`")
        booted = LiveGuest(self, guest)
        self.guests.append(booted)
        return booted

    async def aclose(self) -> None:
        """Shut down: guests still running are killed, and what nobody has met yet is raised."""
        if not self.live.over:
            for guest in self.guests:
                self.live.spawn(f"kill {guest.name}", killproc(guest.proc))
            self.live.post(self._shutdown, None)
        await self._ended.wait()
        if self.error is None:
            self.machine.oracle.finish()
        elif not self.told:
            raise self.error

    def abandon(self) -> None:
        """Stop at once."""
        self.told = True
        self._stopping.cancel()


class LiveGuest:
    """A guest that was booted. `await guest` for {pid: Result} when its last process has ended."""

    def __init__(self, host: LiveHost, guest: Guest) -> None:
        self.host = host
        self.name = guest.name
        known = len(host.live.threads)
        self.vkernel: Vkernel = host.machine._boot(host.scenario, guest)
        self.proc = host.kernel.procs[-1]
        threads = list(host.live.threads.values())[known:]
        self._threads: list[Thread] = [thread for thread in threads if not thread.daemon]

    def __await__(self) -> Generator[Any, Any, dict[int, Result]]:
        return self.wait().__await__()

    async def wait(self) -> dict[int, Result]:
        """How each process ended. Raises what ended the host, or what the guest found wrong."""
        host = self.host
        try:
            for thread in self._threads:
                await host.live.join(thread)
        except FAILURES:
            host.told = True
            raise
        if self.vkernel.boot_error is not None:
            raise BootFailed(f"{self.name}: {self.vkernel.boot_error}")
        for wrong in self.vkernel.failed:
            raise WrongMemory(f"{self.name}: {wrong}")
        return dict(sorted(self.vkernel.results.items()))


def _hosting(scenario: Scenario) -> Scenario:
    """The host alone."""
    import msgspec

    return msgspec.structs.replace(scenario, guest=())
