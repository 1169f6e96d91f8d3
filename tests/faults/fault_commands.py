"""The command line in this process, or in a forked one, which can be killed, limited and raced and imports nothing."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mribench.cli import main

PATIENCE = 120.0  # seconds; every command of the trials takes a few
HUNG = -1000


@dataclass(frozen=True)
class Ended:
    """Exit code (negative: a signal) and everything that was said."""

    code: int
    text: str

    @property
    def is_clean(self) -> bool:
        """Whether it ended as promised: exit code 0, 1 or 2 and no traceback."""
        return self.code in (0, 1, 2) and "Traceback" not in self.text


def call(*words: object) -> Ended:
    """Run a command in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = _run(words)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return Ended(code, said.getvalue())


def _run(words: tuple[object, ...]) -> int:
    try:
        main(["-q", *map(str, words)])
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 99
    return 0


@dataclass(frozen=True)
class Started:
    """A forked command."""

    pid: int
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """How it ended; one that still runs after `seconds` is killed, and its code is HUNG."""
        status = self._status(seconds)
        if status is None:
            self.kill()
            os.waitpid(self.pid, 0)
        code = HUNG if status is None else os.waitstatus_to_exitcode(status)
        return Ended(code, self.log.read_text(errors="replace"))

    def _status(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            time.sleep(0.005)
        return None


def start(log: Path, *words: object, before: Callable[[], None] | None = None) -> Started:
    """Fork a command; `before` is called in the new process, to set limits or close files."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Started(pid, log)
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if before:
            before()
        code = _run(words)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
    except SystemExit as stopped:  # SIGTERM when the command has just ended
        code = int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 99
    os._exit(code)


def memory_limit(megabytes: int) -> Callable[[], None]:
    """The present address space and that much more."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + megabytes * 10**6
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return limit


def file_limit(size: int) -> Callable[[], None]:
    """No file may grow beyond `size` bytes: a write fails as on a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def killed_after(seconds: float, log: Path, number: int, *words: object) -> Ended:
    """Run a command and send it a signal after that time, if it still runs."""
    process = start(log, *words)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(min(0.01, max(0.0, end - time.monotonic())))
    process.kill(number)
    return process.wait()
