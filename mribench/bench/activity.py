"""What a command is doing on a bench, as another terminal can read it: a small file under locks/ while it works."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import NonNegativeFloat, NonNegativeInt

from mribench.bench.locks import process_identity
from mribench.errors import MribenchError
from mribench.files import Record

_SECONDS = 2.0  # between two writings


class Activity(Record):
    """locks/activity-PID.json: `done` of `total` of what a process works on; times in seconds since 1970."""

    SCHEMA: ClassVar[str] = "mribench/activity/1"

    process: str  # host, number and start
    work: str
    done: NonNegativeInt
    total: NonNegativeInt
    started: NonNegativeFloat
    updated: NonNegativeFloat
    seconds_left: NonNegativeFloat | None = None
    note: str = ""


@dataclass
class Announcer:
    """Writes this process's activity on a bench, at most every two seconds."""

    bench_folder: Path
    _written: float = field(default=-_SECONDS, init=False)
    _work: str = field(default="", init=False)
    _started: float = field(default=0.0, init=False)

    def announce(self, work: str, done: int, total: int, seconds_left: float | None, note: str) -> None:
        """Tell other terminals. A full disk or a folder that may only be read stops no work."""
        now = time.time()
        if work != self._work:
            self._work, self._started = work, now
        elif time.monotonic() - self._written < _SECONDS:
            return
        self._written = time.monotonic()
        activity = Activity(
            process=process_identity(os.getpid()),
            work=work,
            done=done,
            total=total,
            started=self._started,
            updated=now,
            seconds_left=seconds_left,
            note=note,
        )
        with suppress(OSError, MribenchError):
            if self.bench_folder.is_dir():
                activity.write(self._path)

    def close(self) -> None:
        """The command has ended."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return _folder(self.bench_folder) / f"activity-{os.getpid()}.json"


def activities(bench_folder: Path) -> list[Activity]:
    """What living processes of this machine, and processes of others, are doing; the oldest first.

    Files of processes that have ended, and damaged ones, are left out.
    """
    living = []
    for path in _folder(bench_folder).glob("activity-*.json"):
        with suppress(MribenchError):
            activity = Activity.read(path)
            if _may_live(activity.process):
                living.append(activity)
    return sorted(living, key=lambda activity: activity.started)


def _folder(bench_folder: Path) -> Path:
    return bench_folder / "locks"


def _may_live(process: str) -> bool:
    host, pid, _ = process.rsplit(" ", 2) if process.count(" ") >= 2 else ("", "", "")
    return host != platform.node() or (pid.isdecimal() and process_identity(int(pid)) == process)
