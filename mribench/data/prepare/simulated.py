"""The simulated cohort of a protocol: every role has its own subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mribench.data.cohort import ROLES, Cohort, CohortPlan
from mribench.data.grid import Grid, paper_grid, quantise
from mribench.data.prepare.builder import Product, Task, make_volumes, write_cohort
from mribench.data.simulate import RECIPE, Planted, simulate
from mribench.data.volume_set import Progress
from mribench.files import digest_json
from mribench.runtime import derive

_PREFIX = "sim-"


def simulated_cohort(folder: Path, plan: CohortPlan, progress: Progress) -> Cohort:
    """Make (or finish making) the simulated cohort of this plan."""
    roles = _roles(plan)
    grid = plan.spec.voxels
    settings: dict[str, Any] = {"name": RECIPE, "seed": plan.seed, **_placed(grid)}

    def task(index: int) -> Task:
        def make() -> Product:
            volume, traits = simulate(plan.seed, index, grid)
            return Product(quantise(volume), traits)

        return Task(f"{_PREFIX}{index:05d}", digest_json({**settings, "subject": index}), make)

    tasks = [task(index) for index in range(len(roles))]
    lines = make_volumes(folder, grid, tasks, progress)
    volumes = [lines[task.name].as_volume(of) for task, of in zip(tasks, roles, strict=True)]
    return write_cohort(folder, plan, {**settings, "count": len(roles)}, volumes)


def is_simulated_now(cohort: Cohort) -> bool:
    """Whether the present simulator made this cohort, so that `simulated_again` gives its subjects."""
    return cohort.source == "simulated" and cohort.record.recipe.get("name") == RECIPE


def simulated_again(cohort: Cohort, name: str, planted: Planted) -> np.ndarray:
    """The subject of that name with something planted in it: `[D,H,W]` in [0,1]."""
    seed, index = cohort.record.recipe["seed"], int(name.removeprefix(_PREFIX))
    volume, _ = simulate(seed, index, cohort.grid, planted)
    return volume


def _placed(grid: Grid) -> dict[str, Any]:
    """The part of the recipe that says where voxels lie."""
    is_usual = grid.is_cube and grid == paper_grid(grid.size)
    return {"size": grid.size} if is_usual else {"grid": grid.model_dump(mode="json")}


def _roles(plan: CohortPlan) -> list[tuple[str, ...]]:
    """The roles of each subject, in order; the paper's way draws the reference from the training subjects."""
    spec = plan.spec
    if not spec.reference_from_train:
        return [(role,) for role in ROLES for _ in range(getattr(spec, role))]
    roles: list[tuple[str, ...]] = [("train",)] * spec.train
    roles += [("holdout",)] * spec.holdout
    drawn = np.random.default_rng(derive(plan.seed, "reference")).permutation(spec.train)
    for index in drawn[: spec.reference]:
        roles[index] = ("train", "reference")
    return roles
