"""What the commands share: options, the reading of --set, and how a failure ends a command."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from mribench.errors import MribenchError, UsageError, is_out_of_memory, out_of_memory
from mribench.metrics.features.weights import Weights

Command = TypeVar("Command", bound=Callable[..., Any])


class Group(click.Group):
    """A click group that turns our errors and the system's into one sentence and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except MribenchError as error:
            _fail(str(error), error.exit_code)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"The system refused: {where}{error.strerror or error}.", 1)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            _fail(out_of_memory(error), 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)


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
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)


class Bytes(click.ParamType):
    """A size such as 800M or 8G, in powers of 1000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])B?", str(value).strip().upper())
        if found is None:
            self.fail(f"{value!r} is no size such as 800M or 8G", param, ctx)
        return int(float(found[1]) * 1000 ** (1 + "KMGT".index(found[2])))


memory_option = click.option(
    "--memory",
    type=Bytes(),
    default="2G",
    show_default=True,
    help="Most memory for volumes prepared for comparison, on the device in use; changes no score.",
)
overwrite_option = click.option(
    "--overwrite",
    is_flag=True,
    help="Throw away what is there and do it again (the only destructive option).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
batch_option = click.option(
    "--batch",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Volumes made together; does not change any volume (up to rounding).",
)


weights_file = click.Path(path_type=Path, dir_okay=False, exists=True)
weights_option = click.option(
    "--weights",
    type=weights_file,
    help="Weights of the feature extractor, for one whose weights no package carries.",
)


def weights_options(command: Command) -> Command:
    """The options --weights and --weights-3d, given to the command as one argument `weights`."""

    @wraps(command)
    def together(*args: Any, weights: Path | None, weights_3d: Path | None, **kwargs: Any) -> Any:
        return command(*args, weights=Weights(weights, weights_3d), **kwargs)

    volumes = "Weights of MedicalNet's ResNet-50, for fid_3d: with --real, or where the protocol measures it."
    both = click.option("--weights-3d", type=weights_file, help=volumes)(together)
    return cast(Command, weights_option(both))


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
