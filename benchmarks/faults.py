"""The fault matrix with its counts, and the time that digests take of an evaluation.

python benchmarks/faults.py            both (about an hour of one core); writes benchmarks/results/faults.json
python benchmarks/faults.py --cost     the time of the digests only
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "faults.json"
sys.path.insert(0, str(ROOT / "tests"))


def matrix() -> dict[str, Any]:
    """Counts by kind of fault from `pytest -m faults`; its failures are in the counts."""
    counts = Path(tempfile.mkdtemp()) / "counts.json"
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "faults", "tests/faults"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "MRIBENCH_FAULT_COUNTS": str(counts)}, check=False)
    return json.loads(counts.read_text())


class _Timed:
    """A hasher whose time is added up."""

    seconds = 0.0

    def __init__(self, hasher: Any) -> None:
        self._hasher = hasher

    def update(self, data: bytes) -> None:
        begun = time.perf_counter()
        self._hasher.update(data)
        _Timed.seconds += time.perf_counter() - begun

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()


def cost() -> dict[str, Any]:
    """Seconds of an evaluation of five controls at 32^3 with empty arrays, and of its digests alone."""
    from small_bench import PROTOCOL

    from mribench import files
    from mribench.cli import main

    def run(*words: object) -> None:
        main([*map(str, ("-q", *words)), "--bench", str(bench)], standalone_mode=False)

    folder = Path(tempfile.mkdtemp())
    bench, protocol = folder / "bench", folder / "small.toml"
    protocol.write_text(PROTOCOL)
    run("init", "--protocol", protocol)
    run("generate", "--all", "--device", "cpu")
    run("evaluate", "--all", "--device", "cpu")  # compiles
    shutil.rmtree(bench / "arrays")
    seal_hasher, digest_json = files._seal_hasher, files.digest_json

    def timed_digest(value: Any) -> str:
        begun = time.perf_counter()
        digest = digest_json(value)
        _Timed.seconds += time.perf_counter() - begun
        return digest

    files._seal_hasher = lambda path: _Timed(seal_hasher(path))
    files.digest_json = timed_digest
    begun = time.perf_counter()
    run("evaluate", "--all", "--overwrite", "--device", "cpu")
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return {
        "evaluation_seconds": round(seconds, 3),
        "digest_seconds": round(_Timed.seconds, 4),
        "proofs_of_an_evaluation": round(_Timed.seconds / seconds, 6),
    }


def write(**parts: Any) -> None:
    """Put the parts into the results file."""
    every = json.loads(OUT.read_text()) if OUT.exists() else {}
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    OUT.write_text(
        json.dumps({"command": "python benchmarks/faults.py", **machine, **every, **parts}, indent=1) + "\n"
    )


if __name__ == "__main__":
    write(cost=cost())
    if "--cost" not in sys.argv:
        write(matrix=matrix())
