"""Read values of benchmarks/results/*.json and write them as Markdown."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


# In the order of the cDPM paper's Table 1.
TITLES = {
    "vae_gan": "3D-VAE-GAN",
    "gan_gp": "3D-GAN-GP",
    "alpha_wgan": "3D-alpha-WGAN",
    "cce_gan": "CCE-GAN",
    "ha_gan": "HA-GAN",
    "dpm3d": "3D-DPM",
    "cdpm": "cDPM",
}


@functools.cache
def read(name: str) -> Any:
    """The contents of benchmarks/results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def at(path: str) -> list[Any]:
    """The values at FILE/KEY/...; a number names the entry of a list, and * stands for all entries."""
    name, *keys = path.split("/")
    values = [read(name)]
    for key in keys:
        if key == "*":
            values = [entry for v in values for entry in (v if isinstance(v, list) else v.values())]
        else:
            values = [v[int(key)] if isinstance(v, list) else v[key] for v in values]
    return values


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table on lines of its own."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n\n" + "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n\n"


def clock(seconds: float) -> str:
    """`470` as `7 min 50 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def span(values: Iterable[float], form: str = ".0f", join: str = " to ") -> str:
    """The lowest and the highest value; one figure when both read the same."""
    values = list(values)
    low, high = (format(limit, form).replace("e-0", "e-") for limit in (min(values), max(values)))
    return low if low == high else low + join + high


def speed(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2g} s"
