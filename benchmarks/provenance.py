"""Which machine and which versions a figure comes from: shared by the scripts here."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mribench.bench.folder import versions


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, threads, present load, and versions (also of `packages`)."""
    return {
        "processor": f"{_processor()} ({platform.machine()})",
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average": os.getloadavg()[0],
        "versions": versions() | {name: version(name) for name in packages},
    }


def peak_gib() -> float:
    """Most memory that this process has had, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _processor() -> str:
    """Its name, where the system has one."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()
