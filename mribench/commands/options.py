"""What the commands share: options, the reading of --set, and how a failure ends a command. Imports nothing heavy."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import click

from mribench import processes
from mribench.errors import MribenchError, UsageError, is_out_of_memory, out_of_memory

if TYPE_CHECKING:
    from mribench.runtime import Context, Progress

Command = TypeVar("Command", bound=Callable[..., Any])


class Group(click.Group):
    """A click group that turns our errors and the system's into one sentence and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _open_closed_streams()
        logging.raiseExceptions = False  # a closed stderr stops no training
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _stop)
        try:
            with processes.joined(processes.launch_of(os.environ), sys.argv[1:]):
                return super().main(*args, **kwargs)
        except SystemExit as end:
            processes.leave(end.code if isinstance(end.code, int) else 0)
        except MribenchError as error:
            _fail(str(error), error.exit_code)
        except processes.JobEnded as error:
            _fail(str(error), 1)
        except Exception as error:
            if is_out_of_memory(error):
                _fail(out_of_memory(error), 1)
            if not isinstance(error, OSError):
                if processes.may_speak():
                    raise
                processes.leave(1)
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"The system refused: {where}{error.strerror or error}.", 1)


def _fail(message: str, code: int) -> NoReturn:
    if processes.may_speak():
        with suppress(OSError):  # nobody reads it, but the exit code says it too
            click.echo(f"Error: {message}", err=True)
    processes.leave(code)


def _stop(number: int, frame: object) -> None:
    """On SIGTERM: leave as from any failure, so that no temporary file stays."""
    signal.signal(number, signal.SIG_IGN)
    if processes.is_first() and processes.may_speak():  # the signal comes to all of them
        with suppress(OSError):
            click.echo(
                "Error: Stopped by SIGTERM. Run the same command again: it goes on where it stopped.",
                err=True,
            )
    sys.exit(1)  # which unwinds, so that no temporary file stays


def _open_closed_streams() -> None:
    """Give a closed stdin, stdout or stderr a descriptor, so that no file of the bench gets its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def bench_folder(default: str) -> Callable[[Command], Command]:
    """The option --bench with a default folder."""
    return click.option(
        "--bench",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(default),
        show_default=True,
        help="Folder of the bench.",
    )


bench_option = bench_folder("mribench-bench")
protocol_option = click.option(
    "--protocol",
    help="Shipped protocol or .toml file, for a new bench. [default: demo, or the bench's own]",
)
simulated_option = click.option(
    "--simulated",
    is_flag=True,
    help="With a protocol for own data: use simulated brains; the protocol's name says so.",
)


class Bytes(click.ParamType):
    """A size such as 800M or 8G, in powers of 1000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])B?", str(value).strip().upper())
        if found is None:
            self.fail(f"{value!r} is no size such as 800M or 8G", param, ctx)
        return int(float(found[1]) * 1000 ** (1 + "KMGT".index(found[2])))


overwrite_option = click.option(
    "--overwrite",
    is_flag=True,
    help="Throw away what is there and do it again (the only destructive option).",
)
name_option = click.option(
    "--name", help="What the run is called, where that is not the model's name. [default: MODEL]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
wide_option = click.option(
    "--wide", is_flag=True, help="Print every column of the table and its notes, not 80 columns."
)
batch_option = click.option(
    "--batch",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Volumes made together; does not change any volume (up to rounding).",
)


_file = click.Path(path_type=Path, dir_okay=False, exists=True)
_CONTEXT_OPTIONS = {
    "device": click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    ),
    "memory": click.option(
        "--memory",
        type=Bytes(),
        default="2G",
        show_default=True,
        help="Most memory for volumes prepared for comparison, on the device in use; changes no score.",
    ),
    "weights": click.option(
        "--weights",
        type=_file,
        help="Weights of the feature extractor, for one whose weights no package carries.",
    ),
    "weights_3d": click.option(
        "--weights-3d",
        type=_file,
        help="Weights of MedicalNet's ResNet-50, for fid_3d: with --real, or where the protocol measures it.",
    ),
}

Compute = Callable[["Progress"], "Context"]  # makes the one context of a command


def compute_options(*more: str) -> Callable[[Command], Command]:
    """--device and more options of the context ("memory", ...), given to the command as one argument `compute`."""
    names = ("device", *more)

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_context(*args: Any, **kwargs: Any) -> Any:
            settings = {name: kwargs.pop(name) for name in names}

            def compute(progress: Progress) -> Context:
                from mribench.runtime import make_context

                return make_context(progress=progress, **settings)

            return command(*args, compute=compute, **kwargs)

        decorated: Any = with_context
        for name in reversed(names):
            decorated = _CONTEXT_OPTIONS[name](decorated)
        return cast(Command, decorated)

    return decorate


def one_or_all(name: str | None, everything: bool, what: str) -> None:
    """Raise UsageError unless exactly one of a name and --all is given."""
    if everything == (name is not None):
        raise UsageError(f"Give either {what} or --all.")


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE pairs; a value is JSON where it can be (2, 0.5, true, [1,2]) and text where not."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set needs KEY=VALUE, not {setting!r}.")
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed
