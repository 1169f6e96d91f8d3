"""How long `mribench demo` takes, from a new folder to the finished report.

    python benchmarks/demo.py --bench DIR          (about eight minutes on two quiet cores; DIR must not exist)

Writes benchmarks/results/demo.json: seconds in all and of each training.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from provenance import machine

from mribench.files import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "from mribench.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time `mribench demo`.")
    parser.add_argument("--bench", type=Path, required=True, help="folder of the new bench")
    folder = parser.parse_args().bench
    if folder.exists():
        raise SystemExit(f"{folder} must not exist: a finished demo has nothing to do. Name another folder.")
    command = ["demo", "--device", "cpu"]
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", PROGRAM, *command, "--bench", str(folder)], check=True)
    seconds = time.perf_counter() - begun
    trained = {path.parent.name: read_json(path) for path in sorted(folder.glob("runs/*/weights.json"))}
    write_json(
        ROOT / "benchmarks" / "results" / "demo.json",
        {
            "recorded": False,
            "origin": "benchmarks/demo.py",
            "command": " ".join(["mribench", *command]),
            "seconds": seconds,
            "cores": os.cpu_count(),
            "training_seconds": {name: record["seconds"] for name, record in trained.items()},
            "machine": machine(),
        },
    )
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    main()
