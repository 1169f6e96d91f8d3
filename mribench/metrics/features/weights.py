"""Pretrained weights that the user gives as files. Imports nothing heavy, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Weights(NamedTuple):
    """Files of weights; None = the package's own where there are some, else the metric is missing."""

    slices: Path | None = None  # of the 2D extractor, --weights
    volumes: Path | None = None  # of medicalnet-resnet50, --weights-3d
