"""Which machine and which versions a figure comes from: shared by the scripts here."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mribench.bench.folder import versions


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, threads, present load, and versions (also of `packages`)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "processor": f"{names[0]} ({platform.machine()})",
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average": os.getloadavg()[0],
        "versions": versions() | {name: version(name) for name in packages},
    }
