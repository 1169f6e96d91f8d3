"""A training that starts from weights: of a file, or those that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict

from mribench.errors import MribenchError, UsageError
from mribench.files import Record, digest_file
from mribench.models.generator import Generator, GeneratorConfig

SCRATCH, PRETRAINED = "scratch", "pretrained"
FOLDER = Path(__file__).parent / "weights"


class Pretraining(BaseModel):
    """How the shipped weights of one model were made."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str  # of the file
    config: dict[str, Any]
    seen: int
    seconds: float
    protocol: str
    cohort_seed: int
    cohort_digest: str


class PretrainedRecord(Record):
    """pretrained.json: the weights that come with the package."""

    SCHEMA: ClassVar[str] = "mribench/pretrained/1"

    models: dict[str, Pretraining] = {}


def read_pretrained(folder: Path = FOLDER) -> PretrainedRecord:
    """The record of the shipped weights; an empty one where there are none."""
    path = folder / "pretrained.json"
    return PretrainedRecord.read(path) if path.exists() else PretrainedRecord()


def find_start(model: str, start: str, folder: Path = FOLDER) -> Path | None:
    """The file of `--from`: a path, "pretrained", or None for "scratch".

    Raises UsageError for a file that does not exist and for a model without shipped weights, MribenchError when the
    shipped file is damaged.
    """
    if start == SCRATCH:
        return None
    if start != PRETRAINED:
        path = Path(start)
        if not path.is_file():
            raise UsageError(f"--from needs a file of weights, {PRETRAINED!r} or {SCRATCH!r}, not {start!r}.")
        return path
    shipped = read_pretrained(folder).models
    if model not in shipped:
        raise UsageError(
            f"No weights of {model} come with mribench, only of: {', '.join(sorted(shipped)) or 'none'}. "
            f"Train from {SCRATCH!r} or from a file."
        )
    path = folder / f"{model}.safetensors"
    if not path.is_file() or digest_file(path) != shipped[model].digest:
        raise MribenchError(
            f"{path} must be the file that came with mribench, but is not. Install mribench again."
        )
    return path


def check_start(kind: type[Generator], config: GeneratorConfig, path: Path) -> tuple[str, ...]:
    """The networks that the file has weights of, after their names and sizes were compared with the settings'.

    What the file lacks starts anew, but not what sampling needs. Raises MribenchError where the file does not fit.
    """
    with torch.device("meta"):
        model = kind(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    try:
        with safetensors.safe_open(path, "pt") as file:
            given = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise _unfit(kind, path, str(error).splitlines()[0]) from error
    for name, shape in given.items():
        if name not in wanted:
            raise _unfit(kind, path, f"it has {name}, which this model does not have")
        if shape != wanted[name]:
            raise _unfit(kind, path, f"{name} is {list(shape)} in it and {list(wanted[name])} here")
    for name in wanted:
        if name not in given and name.startswith(tuple(f"{need}." for need in model.needs)):
            raise _unfit(kind, path, f"it lacks {name}")
    children = [name for name, _ in model.named_children()]
    return tuple(child for child in children if any(name.startswith(f"{child}.") for name in given))


def start_from(generator: Generator, path: Path) -> None:
    """Copy a file's weights into a fresh generator, as float32 whatever they are stored in."""
    state = safetensors.torch.load_file(path)
    missing, unexpected = generator.load_state_dict(state, strict=False)
    if unexpected:
        raise _unfit(type(generator), path, f"it has {unexpected[0]}, which this model does not have")
    generator.complete_start(set(missing))


def _unfit(kind: type[Generator], path: Path, reason: str) -> MribenchError:
    return MribenchError(
        f"{path} must hold weights of {kind.title} with these settings, but {reason}. Choose the preset and the "
        "settings that it was trained with, or another --from."
    )
