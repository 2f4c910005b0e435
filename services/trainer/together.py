"""Processes that train together, as torchrun starts them: who speaks, what they agree on, who waits.

Knows torch.distributed; knows nothing about training. A process that trains alone asks nobody.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from services.errors import BackendUnavailable, Cancelled
from services.jobs.torchrun_settings import TorchrunSettings

Wait = Callable[[Callable[[], bool]], None]
"""Waits for the first process; asks what it is given whether it should give up."""
_DONE = "conch/done"
_LOOK_SECONDS = 1.0
_JOIN = timedelta(minutes=5)


def rank() -> int:
    """Returns which of the processes this is; the first one, 0, alone reports and writes."""
    return TorchrunSettings().rank


def count() -> int:
    """Returns how many processes train together."""
    return TorchrunSettings().world_size


def num_threads(wanted: int) -> int:
    """Returns how many threads this process may compute by."""
    # Two processes of torch 2.13 that trained over gloo by two threads each hung in backward after some
    # dozen steps, every time; by one thread each they never did. NCCL is not concerned.
    return 1 if count() > 1 and not torch.cuda.is_available() else wanted


def own_folder(folder: Path) -> Path:
    """Returns a folder that this process shares with no other one of its machine."""
    return folder / f"process-{rank()}" if rank() else folder


def any_of(flag: bool) -> bool:
    """Returns whether the flag is set in any of the processes: all of them get the same answer."""
    if count() == 1:
        return flag
    flags = torch.tensor([int(flag)], device=_device())
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


def check_same(step: int) -> None:
    """Raises BackendUnavailable unless all processes go on from the same step."""
    if count() > 1 and not _same(step):
        raise BackendUnavailable(
            "the machines that train together found different checkpoints", reason="CHECKPOINTS_DIFFER"
        )


@contextmanager
def first_ends_last() -> Iterator[Wait]:
    """Gives what keeps the other processes waiting until the first one is through with what is inside.

    A machine that left early could not be joined again by a first one that has to start anew.
    """
    if count() == 1:
        yield lambda _: None
        return
    first = TorchrunSettings()
    store = dist.TCPStore(  # type: ignore[attr-defined]  # given on without being named
        first.master_addr, first.master_port, is_master=False, timeout=_JOIN
    )

    def wait(cancelled: Callable[[], bool]) -> None:
        while not store.check([_DONE]):
            if cancelled():
                raise Cancelled("stopped while the first machine evaluates and writes", reason="CANCELLED")
            time.sleep(_LOOK_SECONDS)

    try:
        yield wait
    finally:
        if rank() == 0:
            store.set(_DONE, "")


def _same(step: int) -> bool:
    bounds = torch.tensor([step, -step], device=_device())
    dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
    return int(bounds[0]) == -int(bounds[1])


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
