"""Tiny weights that come with the package: every model trained on simulated brains of a seed that no protocol has.

    python benchmarks/pretrain.py --bench DIR [MODEL ...]     (run it again after a kill: it goes on)
    python benchmarks/pretrain.py --bench DIR --ship          (writes mribench/models/weights/ from what is trained)

The cohort is that of benchmarks/pretrain.toml. All networks that a training needs are stored in bfloat16; of a
diffusion model that is the averaged network alone.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import safetensors.torch
import torch
from torch import Tensor

from mribench.bench.cohort import start_cohort
from mribench.bench.folder import Bench, Run, start_bench
from mribench.bench.records import WeightsRecord
from mribench.files import atomic, check_seal, digest_file
from mribench.models.start import FOLDER, PretrainedRecord, Pretraining, read_pretrained
from mribench.runtime import make_context
from mribench.training import plan_training, train

PROTOCOL = Path(__file__).resolve().parent / "pretrain.toml"
# Volumes seen: what an afternoon hour of one shared core allowed. Everything else is `tiny`.
BUDGETS = {
    "cdpm": 2_000,
    "gan_gp": 4_000,
    "alpha_wgan": 3_000,
    "ha_gan": 2_800,
    "vae_gan": 2_400,
    "cce_gan": 1_600,
    "dpm3d": 1_000,
}


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def pretrain(bench: Bench, model: str, device: str) -> None:
    """Train `tiny`, or go on."""
    cohort = start_cohort(bench, quiet)
    plan = plan_training(bench, cohort, model, "tiny", {"budget": BUDGETS[model]}, 0)
    print(model, train(bench, cohort, plan, make_context(device)), flush=True)


def stored(run: Run) -> dict[str, Tensor]:
    """The networks of a finished training in bfloat16; counters stay whole numbers."""
    if not check_seal(run.checkpoint):
        raise SystemExit(f"{run.checkpoint} has no seal.")
    model = torch.load(run.checkpoint, weights_only=True)["model"]
    weights = safetensors.torch.load_file(
        run.weights
    )  # with the statistics of BatchNorm as they were renewed
    state = {**model, **weights}
    averaged = any(name.startswith("ema.") for name in state)
    kept = {
        name: value
        for name, value in state.items()
        if "." in name and not (averaged and name.startswith("net."))
    }
    return {
        name: (value.bfloat16() if value.is_floating_point() else value).contiguous()
        for name, value in kept.items()
    }


def ship(bench: Bench, model: str) -> Pretraining:
    """Write the weights of a finished training into the package."""
    run, cohort = bench.run(model), start_cohort(bench, quiet)
    record = WeightsRecord.read(run.weights_record)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{model}.safetensors"
    with atomic(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(stored(run)))
    config: dict[str, Any] = run.read_record().config
    return Pretraining(
        digest=digest_file(path),
        config=config,
        seen=record.seen,
        seconds=round(record.seconds),
        protocol=bench.protocol.name,
        cohort_seed=bench.protocol.seed,
        cohort_digest=cohort.digest,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=Path("pretrain-bench"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ship", action="store_true")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(BUDGETS))
    arguments = parser.parse_args()
    bench = start_bench(arguments.bench, str(PROTOCOL))
    models = arguments.models or list(BUDGETS)
    if not arguments.ship:
        for model in models:
            pretrain(bench, model, arguments.device)
        return
    shipped = {model: ship(bench, model) for model in models if bench.run(model).is_trained()}
    PretrainedRecord(models={**read_pretrained().models, **shipped}).write(FOLDER / "pretrained.json")
    print({model: (FOLDER / f"{model}.safetensors").stat().st_size for model in shipped})


if __name__ == "__main__":
    main()
