"""The processes that work on one command together, started by torchrun or srun; without these, this one alone.

Everything that mribench asks of torch.distributed is here. Values of the command line's kind travel with gloo on the
CPU, tensors on a GPU with NCCL.
"""

from __future__ import annotations

import base64
import datetime
import logging
import os
import pickle
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
K = TypeVar("K")

PORT = 29500  # as torchrun's own default; of srun jobs, another one by the job's number
PATIENCE = datetime.timedelta(days=1)  # for a process that works alone while the others wait
BUCKET_BYTES = 25_000_000
SPEAKER = "speaker"  # the key under which the process that reports the failure puts its number


class JobEnded(BaseException):
    """The processes of a command cannot go on together; says why. Nothing but the command line may catch it."""


_LOST = (
    "A process of this command ended without a message (was it killed?), so the others stop. Run the same command "
    "again: it goes on where it stopped."
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
    exchanges: int = 0
    divisions: int = 0
    heard: int = 0  # of what the others have told the first


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
    """Waits for others inside: raises JobEnded when one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        raise JobEnded(_LOST) from error


def gather(value: T, at: str = "") -> list[T]:
    """The value that each process gives, by rank; waits for all of them.

    Raises JobEnded when they are not all at the same place of their work, which `at` names.
    """
    if _group is None:
        return [value]
    import torch.distributed as dist

    _group.exchanges += 1
    given: list[Any] = [None] * size()
    with _peers():
        dist.all_gather_object(given, (f"exchange {_group.exchanges} {at}".rstrip(), value))
    places = dict.fromkeys(place for place, _ in given)
    if len(places) > 1:
        raise JobEnded(
            f"All processes must do the same work, but they are at: {'; '.join(places)}. One of them may have failed "
            "alone. Run the same command again."
        )
    return [value for _, value in given]


def from_first(compute: Callable[[], T], at: str = "") -> T:
    """What the first process computes, alone, given to all; the others wait for it, and all raise what it raises."""
    if _group is None:
        return compute()
    import torch.distributed as dist

    values: list[Any] = [None]
    with agreement(at):
        if is_first():
            with alone():
                values = [compute()]
    with _peers():
        dist.broadcast_object_list(values, src=0)
    first: T = values[0]
    return first


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process takes itself for the only one."""
    global _group
    group, _group = _group, None
    try:
        yield
    finally:
        _group = group


def first_alone(find: Callable[[], T]) -> T:
    """What `find` makes on the disk and returns: the first process calls it, then the others, who find it made."""
    made: list[T] = []

    def make() -> None:
        made.append(find())

    from_first(make)
    return made[0] if made else find()


@contextmanager
def agreement(at: str = "") -> Iterator[None]:
    """What a process raises inside, where none waits for another, all of them raise at the end."""
    if _group is None:
        yield
        return
    mine: MribenchError | None = None
    try:
        yield
    except MribenchError as error:
        mine = error
    except OSError as error:
        mine = MribenchError(f"The system refused: {error.filename or ''} {error.strerror or error}.")
    for raised in gather(mine, at):
        if raised is not None:
            raised.agreed = True
            raise raised


def divided(items: Sequence[T]) -> Iterator[T]:
    """Those of the items that this process takes: the next one that none has taken, whenever it is ready for one."""
    if _group is None:
        yield from items
        return
    _group.divisions += 1
    key = f"division {_group.divisions}"
    with _peers():
        while (place := _group.store.add(key, 1) - 1) < len(items):
            yield items[place]


def exchange(found: Mapping[K, T], at: str = "") -> dict[K, T]:
    """What all processes have found together."""
    return {key: value for each in gather(dict(found), at) for key, value in each.items()}


def tell_first(value: object) -> None:
    """Give the first process something, without waiting until it asks."""
    if _group is None:
        return
    with _peers():
        number = _group.store.add("told", 1)
        _group.store.set(f"told {number}", base64.b64encode(pickle.dumps(value)).decode())


def told() -> Iterator[Any]:
    """What the others have told the first process since it last asked."""
    if _group is None:
        return
    with _peers():
        while _group.heard < _group.store.add("told", 0):
            _group.heard += 1
            key = f"told {_group.heard}"
            yield pickle.loads(base64.b64decode(_group.store.get(key)))
            _group.store.delete_key(key)


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
