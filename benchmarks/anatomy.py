"""What does the metric `anatomy` measure? Simulated faults, the simulator's truth, disturbed intensities, a real head.

    OMP_NUM_THREADS=1 python benchmarks/anatomy.py --colin FOLDER --cache CACHE      (about 10 minutes of one core)

FOLDER holds ch2bet.nii.gz and aal.nii.gz, Colin27 and its AAL labels (Debian's mricron-data: templates); without it the
real head is left out. Subjects of seed 11 are the null; each fault has subjects of its own. Power is the proportion of
draws of 24 samples against 24 null subjects with p <= 0.05 (199 permutations). Truth: the simulator's own tissue
proportions, split into regions by the template coordinates that it warped. Writes benchmarks/results/anatomy.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from frechet import machine
from scipy import ndimage

from mribench.data import simulate as simulator
from mribench.data.anatomy import _VENTRICLE_BOX_MM, Lattice, _lateral_ventricles, mni_anatomy
from mribench.data.grid import paper_grid
from mribench.data.volume_set import VIEWS, VolumeSet
from mribench.files import write_json
from mribench.metrics.anatomy import ANATOMY, SHRINKAGE
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.arrays.distances import JointDistances, squared_distances
from mribench.metrics.features.anatomy import in_cerebellum, lattice_of, region_volumes, segment
from mribench.metrics.kid import _kernel
from mribench.metrics.mmd import MMD
from mribench.metrics.regions import LEAST_SPREAD, REGIONS, TRAITS, traits
from mribench.metrics.statistics.permutation import permutation_p
from mribench.metrics.statistics.regions import compare_regions

SIZE, N = 72, 24
SEEDS = {"none": 11, "wide ventricles": 12, "young only": 13, "thin cortex": 14, "asymmetry": 14}
YOUNG_YEARS, WIDER_MM, THINNER = 64.0, 3.0, 0.4
Subject = tuple[np.ndarray, np.ndarray]  # volume [D,H,W], true volumes of REGIONS in ml [8]
Change = Callable[[simulator._Traits], simulator._Traits]


def same(subject: simulator._Traits) -> simulator._Traits:
    return subject


def wider(subject: simulator._Traits) -> simulator._Traits:
    return dataclasses.replace(subject, ventricle_mm=subject.ventricle_mm + WIDER_MM)


def thinner(subject: simulator._Traits) -> simulator._Traits:
    return dataclasses.replace(subject, atrophy=subject.atrophy + THINNER)


def draw(seed: int, index: int, size: int, change: Change = same) -> Subject:
    """As `simulate`, with changed traits, and the true region volumes."""

    def generator(part: str) -> np.random.Generator:
        return simulator._generator(seed, index, part)

    subject = change(simulator._draw_traits(generator("traits")))
    warp = simulator._draw_warp(generator("warp"), subject.ventricle_mm)
    oversampling = (simulator._oversampling(size),) * 3
    lattice = simulator._finer_lattice(paper_grid(size), oversampling)
    brain = simulator._warped_brain(lattice, subject, warp, generator("folds"))
    signal = simulator._signal(brain, subject, generator("bias"))
    signal = simulator._add_noise(signal, subject, lattice, generator(f"noise {size}"))
    image = simulator._block_mean(simulator._normalised(signal, brain.inside), oversampling)
    origins = simulator._template_points(lattice, subject, warp)[brain.inside]
    return image.numpy(), true_volumes(brain.tissues, origins, float(np.prod(lattice.spacing_mm)) / 1000)


def true_volumes(tissues: np.ndarray, origins: torch.Tensor, voxel_ml: float) -> np.ndarray:
    anatomy = mni_anatomy()
    ventricle_map = torch.from_numpy(_lateral_ventricles(anatomy).astype(np.float32))[None]
    ventricle = anatomy.lattice.sample(ventricle_map, origins, "zeros")[0].numpy()
    points = origins.numpy().astype(np.float64)
    left, cerebrum = points[:, 0] < 0, ~in_cerebellum(points)
    csf, grey, white = tissues
    halves = [matter[cerebrum & side].sum() for matter in (grey, white) for side in (left, ~left)]
    ventricles = [ventricle[side].sum() for side in (left, ~left)]
    volumes = [*ventricles, csf.sum() - sum(ventricles), *halves, (grey + white)[~cerebrum].sum()]
    return np.array(volumes) * voxel_ml


def fault(name: str, count: int) -> Iterable[Subject]:
    seed = SEEDS[name]
    change = {"wide ventricles": wider, "thin cortex": thinner}.get(name, same)
    ages = (simulator._draw_traits(simulator._generator(seed, index, "traits")).age for index in range(2000))
    suitable = [index for index, age in enumerate(ages) if name != "young only" or age < YOUNG_YEARS]
    for index in suitable[:count]:
        yield draw(seed, index, SIZE, change)


def subjects(name: str, count: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Volumes `[N,D,H,W]` and true region volumes `[N,8]`, stored in `folder` so that a killed run continues.

    Asymmetry: the left half of a head with a thin cortex, the right half of the same head without.
    """
    path = folder / f"{name} {count}.npz"
    if path.exists():
        stored = np.load(path)
        return stored["images"], stored["truths"]
    images, truths = map(np.stack, zip(*fault(name, count), strict=True))
    if name == "asymmetry":
        images[..., : SIZE // 2] = subjects("thin cortex", count, folder)[0][..., : SIZE // 2]
    folder.mkdir(parents=True, exist_ok=True)
    with open(part := path.with_suffix(".part"), "wb") as file:
        np.savez(file, images=images, truths=truths)
    part.replace(path)
    return images, truths


def correlations(measured: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """Per trait: Pearson's r, difference of the geometric means in %, ratio of the standard deviations."""
    ours, true = traits(measured), traits(truth)
    return {
        trait: {
            "r": float(np.corrcoef(a, b)[0, 1]),
            "difference_percent": float(100 * np.expm1(a.mean() - b.mean())),
            "deviation_ratio": float(a.std() / b.std()),
        }
        for trait, a, b in zip(TRAITS, ours.T, true.T, strict=True)
    }


def at_size(size: int, count: int) -> dict[str, Any]:
    drawn = [draw(SEEDS["none"], index, size) for index in range(count)]
    lattice = lattice_of((size,) * 3, None)
    measured = np.stack([region_volumes(volume, lattice) for volume, _ in drawn])
    found = correlations(measured, np.stack([truth for _, truth in drawn]))
    return {"size": size, "subjects": count, "traits": found}


def alternatives(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Kernels that the metric could have had: the joint distribution only, each trait only, Gaussian bank."""
    deviations = np.maximum(rows.std(axis=0, ddof=1), LEAST_SPREAD)
    scaled = rows / deviations
    shrunk = (1 - SHRINKAGE) * np.corrcoef(scaled.T) + SHRINKAGE * np.eye(len(TRAITS))
    values, vectors = np.linalg.eigh(shrunk)
    distances = np.sqrt(squared_distances(scaled @ vectors / np.sqrt(values)))
    median = np.median(distances[distances > 0])
    bank = [np.exp(-((distances / (factor * median)) ** 2) / 2) for factor in (0.5, 1, 2)]
    alone = sum(np.sqrt(abs(trait[:, None] - trait)) for trait in scaled.T)
    return {
        "joint": -np.sqrt(distances),
        "joint_power_1": -distances,
        "alone": -alone,
        "bank": np.mean(bank, axis=0),
    }


def p_values(volumes_ml: np.ndarray, features: np.ndarray, seed: int) -> dict[str, float]:
    """Of the first N rows against the rest, by each statistic; `features` `[2N,3,P,F]`, P slices a view."""
    rows = traits(volumes_ml)
    views = [features[:, view].reshape(len(features), -1) for view in range(len(VIEWS))]
    joint = JointDistances(
        tuple(map(squared_distances, views)), tuple((view**2).sum(axis=1) for view in views), N
    )
    grams = {"anatomy": ANATOMY.exchangeable((rows[:N], rows[N:]))[0], "mmd": MMD.exchangeable(joint)[0]}
    for number, view in enumerate(VIEWS):
        slices = features[:, number].swapaxes(0, 1)
        grams[f"kid_{view[0]}"] = np.mean([_kernel(of_slice) for of_slice in slices], axis=0)
    grams |= alternatives(rows)
    return {name: permutation_p(gram, N, permutations=199, seed=seed) for name, gram in grams.items()}


def power(
    volumes: dict[str, np.ndarray], features: dict[str, np.ndarray], draws: int, row_draws: int
) -> dict[str, Any]:
    """Fault -> statistic -> proportion of draws with p <= 0.05; "regions": any Holm p of `compare_regions`."""
    rng, found = np.random.default_rng(0), {}
    for name in volumes:
        hits: dict[str, list[bool]] = {}
        values = []
        for index in range(draws):
            order = rng.permutation(len(volumes["none"]))
            reference = order[:N]
            samples = order[N : 2 * N] if name == "none" else rng.permutation(len(volumes[name]))[:N]
            ml = np.concatenate([volumes["none"][reference], volumes[name][samples]])
            both = np.concatenate([features["none"][reference], features[name][samples]])
            for statistic, p in p_values(ml, both, index).items():
                hits.setdefault(statistic, []).append(p <= 0.05)
            if index < row_draws:
                rows = compare_regions(ml[:N], ml[N:])
                hits.setdefault("regions", []).append(min(min(r.p_mean, r.p_spread) for r in rows) <= 0.05)
            everything = {"reference": np.arange(N), "samples": np.arange(N)}
            values.append(ANATOMY.value((traits(ml[:N]), traits(ml[N:])), everything))
        found[name] = {
            "power": {statistic: float(np.mean(hit)) for statistic, hit in hits.items()},
            "value": {"mean": float(np.mean(values)), "standard_deviation": float(np.std(values))},
            "all_subjects": [r.model_dump() for r in compare_regions(volumes["none"], volumes[name])],
        }
        print(name, found[name]["power"], found[name]["value"], flush=True)
    return found


def _bias(volume: np.ndarray) -> np.ndarray:
    ramps = np.meshgrid(*[np.linspace(-1, 1, side) for side in volume.shape], indexing="ij")
    return np.clip(volume * (1 + 0.2 * ramps[0] + 0.1 * ramps[2]), 0, 1)


DISTURBANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gain 0.7": lambda volume: 0.7 * volume,
    "gamma 0.7": lambda volume: volume**0.7,
    "gamma 1.4": lambda volume: volume**1.4,
    "bias of 20 % along z, 10 % along x": _bias,
    "noise 0.03": lambda volume: np.clip(
        volume + 0.03 * np.random.default_rng(0).normal(size=volume.shape) * (volume > 0), 0, 1
    ),
    "blur 0.5 voxel": lambda volume: ndimage.gaussian_filter(volume, 0.5),
    "blur 1 voxel": lambda volume: ndimage.gaussian_filter(volume, 1.0),
    "shift by 1 voxel along y": lambda volume: np.roll(volume, 1, axis=1),
}


def disturbed(volumes: np.ndarray, deviations: np.ndarray) -> dict[str, Any]:
    """Per disturbance and trait: mean change in % and in standard deviations of the null subjects."""
    lattice, found = lattice_of(volumes.shape[1:], None), {}
    before = traits(np.stack([region_volumes(volume, lattice) for volume in volumes]))
    for name, change in DISTURBANCES.items():
        after = traits(np.stack([region_volumes(change(volume), lattice) for volume in volumes]))
        moves = (after - before).mean(axis=0)
        found[name] = {
            "percent": dict(zip(TRAITS, (100 * np.expm1(moves)).tolist(), strict=True)),
            "deviations": dict(zip(TRAITS, (moves / deviations).tolist(), strict=True)),
        }
    return found


def real_head(folder: Path) -> dict[str, Any]:
    """Colin27 on the 72^3 grid, against dipy's segmentation without priors at 1 mm and the AAL labels."""
    from dipy.segment.tissue import TissueClassifierHMRF

    image, labels = (nib.load(folder / name) for name in ("ch2bet.nii.gz", "aal.nii.gz"))
    head, aal = (np.asarray(x.dataobj).astype(np.float64).T for x in (image, labels))
    origin = tuple(float(value) for value in image.affine[:3, 3])
    _, hard, _ = TissueClassifierHMRF().classify(head, 3, 0.1, max_iter=8)
    lattice = lattice_of((SIZE,) * 3, None)

    def resampled(array: np.ndarray) -> np.ndarray:
        sides = [max(1, round(side)) for side in lattice.spacing_mm[::-1]]
        field = torch.from_numpy(ndimage.uniform_filter(array.astype(np.float32), sides))[None]
        source = Lattice(origin, (1.0, 1.0, 1.0), array.shape)
        return source.sample(field, lattice.points(), "zeros")[0].numpy()

    volume = resampled(head / head.max())
    ours, measured = segment(volume, lattice), region_volumes(volume, lattice)
    theirs = np.stack([resampled(hard == tissue)[ours.inside] for tissue in (1, 2, 3)])
    cerebellum = resampled(aal >= 91)[ours.inside] > 0.5
    labelled = (resampled(aal > 0)[ours.inside] > 0.5) * ours.proportions[1:].sum(axis=0)
    return {
        "head": "Colin27 (ch2bet), 72^3",
        "volumes_ml": dict(zip(REGIONS, measured.tolist(), strict=True)),
        "tissues": {
            tissue: {
                "ours_ml": float(a.sum() * ours.voxel_ml),
                "dipy_ml": float(b.sum() * ours.voxel_ml),
                "soft_dice": float(2 * np.minimum(a, b).sum() / (a.sum() + b.sum())),
            }
            for tissue, a, b in zip(("CSF", "grey", "white"), ours.proportions, theirs, strict=True)
        },
        "ventricles": {"ours_ml": float(measured[:2].sum()), "dipy_ml": _ventricles(hard == 1, origin)},
        "cerebellum_dice_with_aal": _dice(in_cerebellum(ours.points), cerebellum, labelled),
        "disturbed": disturbed(volume[None], np.ones(len(TRAITS))),
    }


def _dice(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    return float(2 * (weight * (a & b)).sum() / ((weight * a).sum() + (weight * b).sum()))


def _ventricles(fluid: np.ndarray, origin: tuple[float, ...]) -> float:
    """Volume in ml of the two largest pieces of fluid at 1 mm in the simulator's box of the lateral ventricles."""
    z, y, x = np.indices(fluid.shape) + np.array(origin[::-1])[:, None, None, None]
    box = np.ones(fluid.shape, dtype=bool)
    for axis, (low, high) in zip((x, y, z), _VENTRICLE_BOX_MM, strict=True):
        box &= (axis >= low) & (axis <= high)
    pieces, _ = ndimage.label(ndimage.binary_opening(fluid & box))
    return float(np.sort(np.bincount(pieces.ravel())[1:])[-2:].sum() / 1000)


def seconds_per_volume(volumes: np.ndarray, size: int) -> float:
    """Processor time, median, of one volume resampled to `size`^3, on one thread."""
    lattice, times = lattice_of((size,) * 3, None), []
    for volume in volumes:
        volume = np.clip(ndimage.zoom(volume, size / len(volume), order=1), 0, 1)
        begun = time.process_time()
        region_volumes(volume, lattice)
        times.append(time.process_time() - begun)
    return float(np.median(times))


def measure(null: int, count: int, draws: int, colin: Path | None, folder: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    lattice = lattice_of((SIZE,) * 3, None)
    sizes = [at_size(size, 10) for size in (32, 64)]
    head = real_head(colin) if colin else None
    volumes, truths, images = {}, {}, []
    for name in SEEDS:
        drawn, truths[name] = subjects(name, null if name == "none" else count, folder)
        images.append(drawn)
        volumes[name] = np.stack([region_volumes(volume, lattice) for volume in drawn])
        print(name, f"{time.perf_counter() - begun:.0f} s", flush=True)
    together = np.concatenate(images)
    names = tuple(map(str, range(len(together))))
    pool = VolumeSet("pool", names, names, lattice.shape, lambda i: together[i])
    arrays = Arrays({"samples": pool, "reference": pool}, None)
    joined = np.stack([arrays.features("samples", view) for view in VIEWS], axis=1)
    cuts = np.cumsum([len(part) for part in images])[:-1]
    features = dict(zip(SEEDS, np.split(joined, cuts), strict=True))
    return {
        "command": "python " + " ".join(Path(word).name for word in sys.argv),
        "seeds": SEEDS,
        "subjects": {name: len(part) for name, part in volumes.items()},
        "draws": draws,
        "truth": correlations(volumes["none"], truths["none"]),
        "sizes": sizes,
        "power": power(volumes, features, draws, draws // 3),
        "disturbed": disturbed(images[0][:4], traits(volumes["none"]).std(axis=0)),
        "real_head": head,
        "seconds_per_volume": {str(size): seconds_per_volume(images[0][:5], size) for size in (SIZE, 128)},
        "seconds": round(time.perf_counter() - begun),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--colin", type=Path, help="folder with ch2bet.nii.gz and aal.nii.gz")
    parser.add_argument(
        "--cache", type=Path, help="folder for the simulated volumes, to continue a killed run"
    )
    parser.add_argument("--null", type=int, default=96, help="subjects without a fault")
    parser.add_argument("--count", type=int, default=48, help="subjects per fault")
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent / "results" / "anatomy.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.null, arguments.count, arguments.draws, arguments.colin, arguments.cache)
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
