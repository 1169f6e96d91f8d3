"""What a person sees while a command works: one progress display on stderr, with rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mribench import processes
from mribench.bench.activity import Announcer
from mribench.commands.options import Compute
from mribench.errors import finish

if TYPE_CHECKING:
    from mribench.bench.folder import Bench
    from mribench.session import Session

LINE_SECONDS = 30.0  # without a terminal, one line per task at most this often


class Display:
    """`report(what, done, total, note)`: a bar on a terminal, a line now and then in a log file."""

    def __init__(self, progress: Progress | None, quiet: bool) -> None:
        self.progress, self.quiet = progress, quiet
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._said: dict[str, float] = {}
        self._announcer: Announcer | None = None

    def announce_at(self, bench_folder: Path) -> None:
        """From now on, let other terminals read the progress (`mribench status`)."""
        self._announcer = Announcer(bench_folder)

    def close(self) -> None:
        """Nothing is worked on any more."""
        if self._announcer:
            self._announcer.close()

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done; the rate counts from the first report of that name."""
        started, first = self._started.setdefault(what, (time.monotonic(), done))
        rate = (done - first) / max(time.monotonic() - started, 1e-9)
        if self._announcer:
            self._announcer.announce(what, done, total, (total - done) / rate if rate > 0 else None, note)
        if self.quiet:
            return
        text = f"{rate:.3g}/s {note}" if done > first else note
        if self.progress is None:
            self._line(what, done, total, rate, note)
            return
        if what not in self._tasks:
            self._tasks[what] = self.progress.add_task(what, total=total, note=text)
        self.progress.update(self._tasks[what], completed=done, total=total, note=text)

    def _line(self, what: str, done: int, total: int, rate: float, note: str) -> None:
        now = time.monotonic()
        if done < total and now - self._said.get(what, self._started[what][0]) < LINE_SECONDS:
            return
        self._said[what] = now
        speed = f", {rate:.3g}/s" if rate > 0 else ""
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        with suppress(OSError):  # a terminal that is gone, or a full disk under the log, stops no work
            print(f"{what}: {done}/{total}{speed}{left} {note}".rstrip(), file=sys.stderr, flush=True)


@contextmanager
def display(quiet: bool) -> Iterator[Display]:
    """A Display for the length of one command."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        with closing(Display(None, quiet)) as screen:
            yield screen
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress, closing(Display(progress, quiet)) as screen:
        yield screen


@contextmanager
def session(quiet: bool, compute: Compute, find_bench: Callable[[], Bench]) -> Iterator[Session]:
    """A Session for the length of one command: lines on stderr, products on stdout; fails in the end when a run failed.

    The context is made first, so that a wrong option stops the command before a bench or cohort is made.
    """
    from mribench.session import Session

    with display(quiet) as screen:
        context = compute(screen.report)
        current = Session(
            processes.first_alone(find_bench),
            context,
            screen.report,
            lambda line: click.echo(line, err=True),
            click.echo,
        )
        if processes.is_first():
            screen.announce_at(current.bench.folder)
        yield current
    finish(current.failures)
