"""One training step beside other programs: how long OpenMP threads may spin before they sleep.

    python benchmarks/shared_machine.py          (a machine that does nothing else; about ten minutes)

Every row is a process of its own that trains 3D-GAN-GP and cDPM `tiny` beside so many busy processes of the lowest
priority. Writes benchmarks/results/shared_machine.json after each row.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "shared_machine.json"
STEPS = 12
BATCH = 2
WAITS: dict[str, dict[str, str]] = {  # environment of the process, by the row's name
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"spin {count}": {"GOMP_SPINCOUNT": str(count)} for count in (1_000, 10_000, 100_000)},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OTHERS = (0, 1, 4)  # busy processes
SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


def seconds_of_a_step(model: str) -> float:
    """Median over the steps but for the first three."""
    import torch

    from mribench.models import get_model
    from mribench.runtime import seed_everything

    kind = get_model(model)
    seed_everything(0)
    generator = kind(kind.build_config("tiny")).train()
    volumes = 2 * torch.rand(BATCH, 1, 32, 32, 32) - 1
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        generator.training_step(lambda: volumes)
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


@contextmanager
def busy(others: int) -> Iterator[None]:
    """That many processes of the lowest priority that do nothing but count."""
    count = ["nice", "-n", "19", sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(count) for _ in range(others)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def row(wait: str, others: int) -> dict[str, object]:
    """Seconds of a step of both models, measured in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in SPINNING} | WAITS[wait]
    with busy(others):
        done = subprocess.run(
            [sys.executable, __file__, "--row"], env=environment, check=True, capture_output=True, text=True
        )
    return {"wait": wait, "others": others, **json.loads(done.stdout)}


def main() -> None:
    if sys.argv[1:] == ["--row"]:
        print(json.dumps({model: round(seconds_of_a_step(model), 4) for model in ("gan_gp", "cdpm")}))
        return
    from provenance import machine

    from mribench.files import write_json

    rows = []
    for others in OTHERS:
        for wait in WAITS:
            rows.append(row(wait, others))
            print(rows[-1], flush=True)
            write_json(RESULTS, {"command": "python benchmarks/shared_machine.py", **machine(), "rows": rows})


if __name__ == "__main__":
    main()
