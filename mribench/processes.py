"""The processes that work on one command together, started by torchrun or srun; without these, this one alone.

Everything that mribench asks of torch.distributed is here. Values of the command line's kind travel with gloo on the
CPU, tensors on a GPU with NCCL.
"""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mribench.errors import MribenchError, UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store

T = TypeVar("T")

PORT = 29500  # as torchrun's own default; of srun jobs, another one by the job's number
PATIENCE = datetime.timedelta(days=1)  # for a process that works alone while the others wait
BUCKET_BYTES = 25_000_000
SPEAKER = "speaker"  # the key under which the process that reports the failure puts its number


class PeerLost(MribenchError):
    """Another process of the command ended before its end."""

    def __init__(self) -> None:
        super().__init__(
            "A process of this command ended without a message (was it killed?), so the others stop. Run the same "
            "command again: it goes on where it stopped."
        )


@dataclass(frozen=True)
class Launch:
    """What a launcher tells one of its processes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = PORT


@dataclass
class _Group:
    launch: Launch
    store: Store


_alone = Launch()
_group: _Group | None = None


def launch_of(environment: Mapping[str, str]) -> Launch:
    """What torchrun or srun says; one process alone where neither has started this one.

    A batch script is no step of its job, so a command there without srun is one process.
    Raises UsageError for variables that contradict each other.
    """
    if "TORCHELASTIC_RUN_ID" in environment or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        address, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", str(PORT))
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        port = environment.get("MASTER_PORT", str(PORT + int(environment.get("SLURM_JOB_ID", "0")) % 10_000))
        address = environment.get("MASTER_ADDR", "")
        if not address and environment["SLURM_STEP_NUM_TASKS"] != "1":
            address = _first_host(environment.get("SLURM_STEP_NODELIST", ""))
    else:
        return _alone
    try:
        rank, size, local = (int(environment[name]) for name in names)
        return Launch(rank, size, local, address, int(port))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"A launcher must set {', '.join(names)} to numbers, but: {error}. Start with torchrun or srun."
        ) from error


def _first_host(nodes: str) -> str:
    """The first machine of SLURM's list, which may be as short as node[3-7]."""
    try:
        names = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        ).stdout.split()
        return names[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UsageError(
            f"srun started several processes, but their first machine is not known: scontrol cannot read {nodes!r}. "
            "Set MASTER_ADDR to its name."
        ) from error


def rank() -> int:
    """Number of this process, from 0."""
    return _group.launch.rank if _group else 0


def size() -> int:
    """How many processes work on this command."""
    return _group.launch.size if _group else 1


def local_rank() -> int:
    """Number of this process among those of its machine, from 0."""
    return _group.launch.local_rank if _group else 0


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


@contextmanager
def joined(launch: Launch, command: Sequence[str]) -> Iterator[None]:
    """Work with the other processes of the launch; only the first prints.

    Raises MribenchError when they do not find each other, UsageError when they were given other commands.
    """
    global _group
    if launch.size == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store = _store(launch)
        dist.init_process_group(
            backend, store=store, rank=launch.rank, world_size=launch.size, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        raise MribenchError(
            f"{launch.size} processes must meet at {launch.address}:{launch.port}, but: {str(error).splitlines()[0]}. "
            "Check MASTER_ADDR and MASTER_PORT, and that the machines reach each other."
        ) from error
    _group = _Group(launch, dist.PrefixStore("mribench", store))
    with _silent_unless_first():
        if any(other != list(command) for other in gather(list(command))):
            raise UsageError("Every process of a launch must be given the same command.")
        try:
            yield
        except SystemExit as end:  # how click ends every command
            if end.code in (0, None):
                _part()
            raise
        _part()


def _part() -> None:
    """Wait until all have come to the end."""
    import torch.distributed as dist

    gather(None)
    dist.destroy_process_group()


def _store(launch: Launch) -> Store:
    """torchrun's agent serves the processes' common store; under srun the first of them does."""
    import torch.distributed as dist

    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    minutes = datetime.timedelta(minutes=10)
    return dist.TCPStore(
        launch.address, launch.port, is_master=launch.rank == 0 and not served, timeout=minutes
    )


@contextmanager
def _silent_unless_first() -> Iterator[None]:
    if is_first():
        yield
        return
    streams = sys.stdout, sys.stderr
    logging.disable(logging.WARNING)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams
            logging.disable(logging.NOTSET)


def may_speak() -> bool:
    """Whether this process is the one that says why the command ends: the first that asks.

    Where the store died with the first process, the second one speaks.
    """
    if _group is None:
        return True
    try:
        said = _group.store.compare_set(SPEAKER, "", str(rank()))
    except RuntimeError:
        return rank() == min(1, size() - 1)
    return said.decode() == str(rank())


def leave(code: int) -> NoReturn:
    """End this process; one of several without the interpreter's own end, which gloo's threads sometimes abort."""
    if _group is None:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


@contextmanager
def _peers() -> Iterator[None]:
    """A collective inside: raises PeerLost when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost from error


def gather(value: T) -> list[T]:
    """The value that each process gives, by rank; waits for all of them."""
    if _group is None:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * size()
    with _peers():
        dist.all_gather_object(values, value)
    return values


def from_first(compute: Callable[[], T]) -> T:
    """What the first process computes, given to all; the others wait for it."""
    if _group is None:
        return compute()
    import torch.distributed as dist

    values: list[Any] = [compute() if is_first() else None]
    with _peers():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def first_alone(find: Callable[[], T]) -> T:
    """What `find` makes on the disk and returns: the first process calls it, then the others, who find it made."""
    made = [find()] if is_first() else []
    gather(None)
    return made[0] if made else find()


def copy_from_first(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors, of equal shapes on every process, with those of the first."""
    if _group is None:
        return
    import torch.distributed as dist

    with _peers():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors, of equal shapes on every process, by their sums over the processes.

    They travel in buckets of one type and at most 25 MB, or one tensor that is larger.
    """
    if _group is None:
        return
    import torch
    import torch.distributed as dist

    with _peers():
        for bucket in _buckets(tensors):
            if len(bucket) == 1 and bucket[0].is_contiguous():
                dist.all_reduce(bucket[0])
                continue
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, total in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        bucket = kinds.setdefault((tensor.dtype, tensor.device), [])
        if bucket and sum(t.nbytes for t in bucket) + tensor.nbytes > BUCKET_BYTES:
            yield list(bucket)
            bucket.clear()
        bucket.append(tensor)
    yield from kinds.values()
