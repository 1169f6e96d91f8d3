"""Gradients of every optimizer step of every model in float64: python gradients.py FILE, in one process or several."""

from __future__ import annotations

import os
import sys

import torch

from mribench import processes
from mribench.models import get_model
from mribench.models.joint_batch import join_statistics, joint_batch, joint_losses, rows_of
from mribench.runtime import derive, seed_everything

STEPS = 2
BATCH = 5  # not divisible by 2 or 3
BATCH_NORM = {"critic_norm": "batch"}
RECIPES = {
    "gan_gp": ("gan_gp", {}),
    "gan_gp of the notebook": ("gan_gp", {**BATCH_NORM, "penalty": "voxel", "patch": True}),
    "alpha_wgan": ("alpha_wgan", {}),
    "alpha_wgan of the public code": (
        "alpha_wgan",
        {**BATCH_NORM, "live_code_term": False, "steps_per_gradient": 2},
    ),
    "cce_gan": ("cce_gan", {}),
    "cce_gan with BatchNorm": ("cce_gan", {**BATCH_NORM, "step_one": ("G", "G"), "log_sum_exp": "coded"}),
    "vae_gan": ("vae_gan", {}),
    "vae_gan with GroupNorm": ("vae_gan", {"critic_norm": "group"}),
    "ha_gan": ("ha_gan", {}),
    "dpm3d": ("dpm3d", {}),
    "dpm3d, accumulated slabs": (
        "dpm3d",
        {"whole_volume": False, "accumulation": 2, "prediction": "eps", "levels": "uniform"},
    ),
    "cdpm": ("cdpm", {}),
    "cdpm, sagittal": (
        "cdpm",
        {"axis": "sagittal", "prediction": "eps", "levels": "uniform", "anchor": True},
    ),
}


def gradients(recipe: str) -> list[dict[str, torch.Tensor]]:
    """The gradient of every parameter at each optimizer step, then the losses and the buffers at the end."""
    name, changes = RECIPES[recipe]
    kind = get_model(name)
    config = kind.build_config("tiny", **{**kind.SMALLEST, **changes, "batch_size": BATCH})
    seed_everything(1)
    generator = kind(config).train()
    if processes.size() > 1:
        join_statistics(generator)
    found = _remember(generator)
    data = torch.rand(64, 1, *[config.size] * 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    rows, seen = rows_of(BATCH), 0

    def next_batch() -> torch.Tensor:
        nonlocal seen
        batch = data[(torch.arange(BATCH) + seen) % len(data)]
        seen += BATCH
        return batch[rows.start : rows.stop]

    for step in range(STEPS):
        seed_everything(derive(3, step))
        with joint_batch(BATCH):
            losses = joint_losses(generator.training_step(next_batch))
        found.append({name: loss.detach() for name, loss in losses.items()})
    buffers = {name: buffer for name, buffer in generator.named_buffers() if buffer.is_floating_point()}
    return [*found, buffers]


def _remember(generator) -> list[dict[str, torch.Tensor]]:
    """Every gradient that `generator` steps with from now on."""
    found = []
    for label, optimizer in generator.optimizers.items():
        step, names = optimizer.step, {id(p): name for name, p in generator.named_parameters()}

        def remembered(step=step, names=names, optimizer=optimizer, label=label):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            found.append(
                {f"{label}: {names[id(p)]}": p.grad.clone() for p in parameters if p.grad is not None}
            )
            return step()

        optimizer.step = remembered
    return found


def main(path: str) -> None:
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # networks round some results to float32 whatever comes in
    with processes.joined(processes.launch_of(os.environ), sys.argv):
        found = {recipe: gradients(recipe) for recipe in RECIPES}
        if processes.is_first():
            torch.save(found, path)


if __name__ == "__main__":
    main(sys.argv[1])
