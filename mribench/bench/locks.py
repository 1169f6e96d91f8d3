"""Locks of the operating system, which end with their process; a file system on which they do not work is noticed."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from mribench import processes
from mribench.errors import MribenchError

log = logging.getLogger(__name__)

_PROCESSES = Path("/proc")


@contextmanager
def hold(folder: Path, what: str, seconds: float = 0) -> Iterator[None]:
    """Hold the lock `locks/WHAT.lock` of a bench; wait for it `seconds` at most. Of several processes, the first.

    Raises MribenchError when another process holds it, or when the bench is no longer in its folder at the end.
    """
    if not processes.is_first():
        yield
        return
    path = folder / "locks" / f"{what}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=seconds)
    except filelock.Timeout as error:
        raise MribenchError(
            f"{what} of {folder} must be worked on by one process at a time, and another is at it now. "
            "Wait for it or stop it, then run the same command again."
        ) from error
    owner = path.with_suffix(".owner")
    try:
        _say_where_locks_fail(path, owner)
        with suppress(OSError):  # a full disk: the note is a help only
            owner.write_text(process_identity(os.getpid()))
        yield
        _check_in_place(folder, path)
        owner.unlink(missing_ok=True)
    finally:
        lock.release()


def _check_in_place(folder: Path, lock: Path) -> None:
    if not lock.exists():
        raise MribenchError(
            f"{folder} must stay where it is while a command works on it, but it was moved or removed. What the "
            "command wrote since then lies at the old place. Run it again at the new one: it goes on there."
        )


def _say_where_locks_fail(path: Path, owner: Path) -> None:
    """Warn when a lock that is held can be taken once more, or when a process that works under it is still alive."""
    if _can_be_taken(path):
        log.warning("Locks do not work in %s. Run one command at a time on this bench.", path.parent)
    noted = owner.read_text(errors="replace") if owner.exists() else ""
    host, _, rest = noted.partition(" ")
    pid = rest.partition(" ")[0]
    elsewhere = host not in ("", platform.node())
    alive = pid.isdecimal() and int(pid) != os.getpid() and process_identity(int(pid)) == noted
    if elsewhere or alive:
        log.warning(
            "%s is free, but the note beside it says that process %s on %s works under it. If that command is still "
            "running, locks do not work in this folder: stop one of the two.",
            path,
            pid,
            host,
        )


def _can_be_taken(path: Path) -> bool:
    """Whether a second descriptor gets the lock, which the first one holds; True where there are no locks at all."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return True


def process_identity(pid: int) -> str:
    """Host, number and start of a process; the start tells a process from a later one with its number."""
    return f"{platform.node()} {pid} {_start(pid)}"


def _start(pid: int) -> str:
    """When a process started, in the words of the system; "gone" when there is no such process."""
    if not _PROCESSES.is_dir():  # macOS
        one_wording = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
        ps = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, env=one_wording
        )
        return "-".join(ps.stdout.split()) or "gone"
    try:
        return (_PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "gone"
