"""What one GPU makes of the paper's sizes: steps, volumes, pairs, waits, determinism, profiles, beside its limits.

    python benchmarks/gpu.py                                  every part, the most important first
    python benchmarks/gpu.py --parts limits,steps             some of them
    python benchmarks/gpu.py --before DIR                     also the steps of another copy of the package in DIR
    python benchmarks/gpu.py --preset tiny --device cpu --parts steps,waits      a try without a GPU

Each part runs in a process of its own and saves every row as it ends. A part is cut after its limit (at most 90 s)
and the page says so; `--seconds` bounds the whole. Writes gpu.json and gpu.md into benchmarks/results (or --out).
No network is needed, and of the package's dependencies only torch, numpy, scipy, numba, pydantic and safetensors.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_page import page

HERE = Path(__file__).resolve().parent
LIMITS = {  # part -> seconds, in the order in which they run
    "limits": 40,
    "wasserstein": 60,
    "steps": 60,
    "compiled": 90,
    "twice": 60,
    "volumes": 45,
    "variants": 60,
    "pairs": 40,
    "tiny": 60,
    "profiles": 60,
    "fp32": 90,
    "before": 90,
}


def run_part(part: str, seconds: float, arguments: argparse.Namespace, folder: Path) -> dict:
    """The rows that a part saved before it ended, failed or was cut."""
    saved = folder / f"{part}.jsonl"
    command = [sys.executable, str(HERE / "gpu_parts.py"), "before" if part == "before" else part, str(saved)]
    command += ["--preset", arguments.preset, "--device", arguments.device]
    roots = [arguments.before] if part == "before" else []
    path = os.pathsep.join([*roots, str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=seconds)
        end = "ended" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, end = process.communicate()[0], "cut"
    rows = [json.loads(line) for line in saved.read_text().splitlines()] if saved.exists() else []
    result = {"end": end, "seconds": time.monotonic() - begun, "limit": seconds, "rows": rows}
    return result if end == "ended" else {**result, "output": text[-3000:]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(LIMITS))
    parser.add_argument("--before", help="a folder that holds another mribench/")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=3600, help="of all parts together")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [p for p in arguments.parts.split(",") if p != "before" or arguments.before]
    result: dict = {
        "command": " ".join(["python benchmarks/gpu.py", *sys.argv[1:]]),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "parts": {},
    }
    end = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        for part in chosen:
            seconds = min(LIMITS[part], end - time.monotonic())
            if seconds < 5:
                result["parts"][part] = {"end": "not begun", "seconds": 0.0, "limit": seconds, "rows": []}
            else:
                result["parts"][part] = run_part(part, seconds, arguments, Path(folder))
            (arguments.out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
            text = page(result)
            (arguments.out / "gpu.md").write_text(text)
            outcome = result["parts"][part]
            print(f"{part}: {outcome['end']} after {outcome['seconds']:.0f} s", flush=True)
            if "output" in outcome:
                print(outcome["output"][-1500:], flush=True)
    print(text)


if __name__ == "__main__":
    main()
