"""Jobs done on a Dask cluster (`vkemu[cluster]`). Scheduling, transport, encryption, and that the
job of a worker that died is done again, are Dask's.

A worker that has other code than we refuses the job; whoever may submit to a cluster may run what
they like on it, with us or without.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from vkemu.workers.alone import Alone
from vkemu.workers.code import code_digest
from vkemu.workers.job import Failed, Job, Kept, WorkersError, performed
from vkemu.workers.processes import held_back

if TYPE_CHECKING:
    from distributed import Client, Future

COUNTED_SECONDS: Final = 1.0  # for so long it is known how many workers there are
PATIENCE_SECONDS: Final = 30.0  # for a scheduler to answer, and for a worker to be there
REMOTE: Final = "dask://"
# Of a cluster of our own. Its processes are copies of one that has imported what they need; nobody
# looks at a profile of them; one that dies while it starts again is waited for.
OWN: Final = {
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.deploy.lost-worker-timeout": "5 minutes",
}


class DaskWorkers:
    """The workers of a `distributed.Client`, which stays its owner's to close."""

    def __init__(self, client: Client) -> None:
        from distributed import as_completed

        self._client = client
        self._name = f"vkemu-{uuid4().hex}"
        self._submitted = 0
        self._code = code_digest()
        # Futures by job; whatever is taken out of it Dask forgets.
        self._under_way: dict[str, tuple[int, Future]] = {}
        self._done = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self._count = 1
        self._counted = -COUNTED_SECONDS

    @property
    def count(self) -> int:
        """Worker processes there are now, 1 while there are none."""
        if monotonic() >= self._counted + COUNTED_SECONDS:
            self._counted = monotonic()
            self._count = max(1, len(self._client.nthreads()))
        return self._count

    def submit(self, job: Job) -> None:
        self._submitted += 1  # the next search may have a job of the same number
        future = self._client.submit(
            perform_there, self._code, job.number, pickle.dumps(job), getattr(job, "alone", b""),
            key=f"{self._name}-{self._submitted}", pure=False,
        )  # fmt: skip
        self._under_way[future.key] = job.number, future
        self._done.add(future)

    def results(self) -> list[Any]:
        return [self._report(future, result) for future, result in self._done.next_batch()]

    def _report(self, future: Future, result: Any) -> Any:
        number, _ = self._under_way.pop(future.key)
        if future.status == "finished":
            code, packed = result
            if packed:
                return pickle.loads(packed)
            return Failed(number, WorkersError(
                f"dask: a worker has other code ({code}) than this process ({self._code}), "
                "expected the same version of vkemu and of Python on both"
            ))  # fmt: skip
        error = result[1] if isinstance(result, tuple) else result
        return Failed(number, WorkersError(f"dask: a job was not done: {_one_line(error)}"))

    def close(self) -> None:
        """Jobs that are being done go on to their end; nobody hears of it."""
        self._done.clear()
        left = [future for _, future in self._under_way.values()]
        self._under_way.clear()
        if left and self._client.status == "running":
            self._client.cancel(left)


def _one_line(error: Any) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, ImportError):
        text += "; expected vkemu on every worker"
    return f"{type(error).__name__}: {text}" if isinstance(error, Exception) else text


# Of a worker process. A kernel thread is known by module state, so there is one job at a time,
# however many threads Dask gives the process.
_one = Lock()
_kept = Kept()
_alone: dict[bytes, Alone] = {}  # for one search


def perform_there(code: str, number: int, packed: bytes, alone: bytes = b"") -> tuple[str, bytes]:
    """Do a job of processes that have the code we have. Nothing comes back where it is another.

    Jobs of a search that has to be `alone` are done in a process beside Dask's, which has threads.
    """
    if code != code_digest():
        return code_digest(), b""
    with _one:
        if not alone:
            return code, performed(number, packed, _kept)
        if alone not in _alone:
            for other in _alone.values():
                other.close()
            _alone.clear()
            _alone[alone] = Alone()
        return code, _alone[alone].perform(number, packed)


@contextmanager
def connected(where: str, preload: Sequence[str] = ()) -> Iterator[DaskWorkers]:
    """The workers at `dask://HOST:PORT`, or those of a cluster of our own, `dask-local[:N]`."""
    extra = "dask is not installed, expected `pip install 'vkemu[cluster]'`"
    try:
        from distributed import Client
    except ImportError:
        raise WorkersError(f"{where}: {extra}") from None
    cluster: AbstractContextManager[Client]
    if where.startswith(REMOTE):
        with _no_cluster(where):
            cluster = Client(_address(where), timeout=PATIENCE_SECONDS, set_as_default=False)
    else:
        cluster = _own_cluster(int(where.partition(":")[2] or 0), preload)
    with cluster as client:
        with _no_cluster(where, "no worker has come"):
            client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
        workers = DaskWorkers(client)
        try:
            yield workers
        finally:
            workers.close()


@contextmanager
def _no_cluster(where: str, what: str = "no scheduler answers") -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # TimeoutError is one
        reason = " ".join(str(error).split())
        raise WorkersError(f"{where}: {what}: {reason}"[:200]) from None


def _address(where: str) -> str:
    """Encrypted where Dask is configured for it (distributed.comm.tls)."""
    import dask

    secure = dask.config.get("distributed.comm.tls.ca-file", None) is not None
    return f"{'tls' if secure else 'tcp'}://{where.removeprefix(REMOTE)}"


@contextmanager
def _own_cluster(wanted: int, preload: Sequence[str]) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster
    from distributed.utils import get_mp_context

    with dask.config.set(OWN):
        get_mp_context().set_forkserver_preload(["distributed", "vkemu.workers.cluster", *preload])
        with ExitStack() as opened:
            with held_back():
                own = opened.enter_context(LocalCluster(
                    n_workers=wanted or None, threads_per_worker=1, processes=True, memory_limit=0,
                    dashboard_address=None, silence_logs=50,
                    # It serves HTTP all the same, and warns when its port is another cluster's.
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                ))  # fmt: skip
            yield opened.enter_context(Client(own, set_as_default=False))
