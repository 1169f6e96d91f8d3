"""A training that writes a checkpoint after every step, in one process or several: resume.py RUN STEPS."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import numpy as np
import torch

from mribench import processes
from mribench.bench.folder import Run
from mribench.data.volume_set import VolumeSet
from mribench.runtime import Context
from mribench.training import load_generator, training_steps


def volumes() -> VolumeSet:
    data = np.random.default_rng(0).random((5, 16, 16, 16), dtype=np.float32)
    names = tuple("abcde")
    return VolumeSet("train", names, names, (16, 16, 16), lambda i: data[i])


def main(folder: str, steps: str) -> None:
    run = Run(Path(folder))
    with processes.joined(processes.launch_of(os.environ), sys.argv):
        context = Context(torch.device("cpu"))
        loop = training_steps(load_generator(run), volumes(), run, context, checkpoint_seconds=-1)
        list(itertools.islice(loop, int(steps)))
        processes.gather(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
