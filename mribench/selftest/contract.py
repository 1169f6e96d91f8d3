"""What every generator and every metric must keep: run by `mribench check NAME` and by the tests."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mribench import training
from mribench.bench.folder import Run
from mribench.bench.records import RunRecord
from mribench.data.grid import to_model_range
from mribench.data.volume_set import VolumeSet
from mribench.errors import UsageError
from mribench.files import digest_json
from mribench.metrics import METRIC_REGISTRY, get_metric
from mribench.metrics.score import Score
from mribench.models import MODEL_REGISTRY, get_model
from mribench.models.generator import Generator
from mribench.runtime import Context, Noise, derive, seed_everything

CPU = torch.device("cpu")
SHORT_TRAINING = 160  # volumes seen; at 128 the slowest of the package's models is at 0.8 of noise
NEARER = 0.9
Check = Callable[[str, dict[str, Any]], None]


def run(name: str, **overrides: Any) -> Iterator[tuple[str, str]]:
    """Check a model (its `tiny` preset with `overrides`) or a metric; yields (what holds, problem or "")."""
    models, metrics = MODEL_REGISTRY.names(), METRIC_REGISTRY.names()
    if name not in (*models, *metrics):
        raise UsageError(f"check needs one of {', '.join([*models, *metrics])}, not {name!r}.")
    checks, argument = (GENERATOR_CHECKS, overrides) if name in models else (METRIC_CHECKS, {})
    (MODEL_REGISTRY if name in models else METRIC_REGISTRY).get(name)  # a plug-in that fails is no breach
    for check in checks:
        title = str(check.__doc__).rstrip(".")
        try:
            check(name, argument)
        except Exception as error:  # a contract reports every breach, whatever its kind
            yield title, f"{type(error).__name__}: {error}"
        else:
            yield title, ""


def _says_what_it_is(name: str, _: dict[str, Any]) -> None:
    """the class has a title, a summary, a source, and settings that fit each other."""
    kind = get_model(name)
    missing = [fact for fact in ("title", "summary", "source") if not getattr(kind, fact, "")]
    _expect(not missing, f"{kind.__name__} must define {', '.join(missing)}")
    for preset in kind.PRESETS:
        kind.build_config(preset)
    size = kind.build_config("tiny").size
    _expect(size == 32, f"preset tiny must make volumes of 32 voxels a side, not {size}")
    kind.build_config("tiny", **kind.SMALLEST)
    kind.check_names(kind.sampler_settings)


def build(name: str, overrides: dict[str, Any]) -> Generator:
    """A fresh generator of the `tiny` preset with seeded weights."""
    kind = get_model(name)
    seed_everything(0)
    return kind(kind.build_config("tiny", **overrides))


def phantoms(count: int, size: int | tuple[int, int, int], seed: int = 0, noise: float = 0.0) -> VolumeSet:
    """Smooth ellipsoids of differing shape, `[D,H,W]` in [0,1], the same on every machine; `size` a side or all."""
    shape = (size, size, size) if isinstance(size, int) else size
    axes = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))

    def volume(i: int) -> np.ndarray:
        rng = np.random.default_rng(derive(seed, "phantom", i))
        radii = 0.6 + 0.25 * rng.random((3, 1, 1, 1))
        waves = np.cos(3 * rng.random((3, 1, 1, 1)) * axes + rng.random()).prod(axis=0)
        inside = ((axes / radii) ** 2).sum(axis=0) < 1
        return np.clip(inside * (0.5 + 0.4 * waves) + noise * rng.random(inside.shape), 0, 1).astype(
            np.float32
        )

    names = tuple(f"{seed}-{noise}-{i}" for i in range(count))
    return VolumeSet(f"phantoms-{seed}", names, tuple(map(digest_json, names)), shape, volume)


def _batches(model: Generator) -> Callable[[], torch.Tensor]:
    volumes = phantoms(6, model.config.array_shape)
    return training.Batches(volumes, model.config.batch_size, 0, CPU).next


def _after_two_steps(name: str, overrides: dict[str, Any]) -> Generator:
    """A generator whose zero-initialised layers have moved, ready to sample."""
    model = build(name, overrides)
    _make_steps(model, 2)
    return model.eval()


def _make_steps(model: Generator, count: int) -> list[dict[str, torch.Tensor]]:
    """So many steps of every stage; returns their losses."""
    batches, losses = _batches(model), []
    for stage in range(len(model.stages)):
        model.stage = stage
        losses += [model.training_step(batches) for _ in range(count)]
    return losses


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _losses_are_named_and_finite(name: str, overrides: dict[str, Any]) -> None:
    """losses are named and finite, also at batch size 1."""
    for batch_size in (1, 2):
        model = build(name, {**overrides, "batch_size": batch_size})
        for losses in _make_steps(model, 1):
            _expect(bool(losses), "training_step returned no losses")
            bad = [key for key, value in losses.items() if not torch.isfinite(value).all()]
            _expect(not bad, f"not finite: {bad}")
            _expect(not any(value.requires_grad for value in losses.values()), "losses must be detached")


def _every_parameter_moves(name: str, overrides: dict[str, Any]) -> None:
    """every parameter of every optimizer, but for single numbers, moves within four steps of its stage."""
    model = build(name, overrides)
    before = {key: value.clone() for key, value in model.named_parameters()}
    owned = {id(p) for o in model.optimizers.values() for g in o.param_groups for p in g["params"]}
    _make_steps(model, 4)
    # A Wasserstein critic's last bias is one number that cancels between real and fake.
    still = [
        k
        for k, p in model.named_parameters()
        if id(p) in owned and p.numel() > 1 and torch.equal(p, before[k])
    ]
    _expect(not still, f"{len(still)} do not, e.g. {still[:3]}")


def _samples_are_volumes(name: str, overrides: dict[str, Any]) -> None:
    """samples are [B,1,D,H,W] in [-1,1]; the same seed gives the same volume, another seed another."""
    model = _after_two_steps(name, overrides)
    first, again, other = (model.sample(Noise([seed])) for seed in (1, 1, 2))
    depth, height, width = model.config.array_shape
    start, stop = model.slab or (0, depth)
    shape = (1, 1, stop - start, height, width)
    _expect(tuple(first.shape) == shape, f"shape {tuple(first.shape)}, expected {shape}")
    _expect(float(first.abs().max()) <= 1, f"values reach {float(first.abs().max())}")
    _expect(torch.equal(first, again), "the same seed gave another volume")
    _expect(not torch.equal(first, other), "another seed gave the same volume")


def _volumes_do_not_depend_on_the_batch(name: str, overrides: dict[str, Any]) -> None:
    """volume i does not depend on its batch (1e-5)."""
    model = _after_two_steps(name, overrides)
    together, alone = model.sample(Noise([5, 6])), model.sample(Noise([6]))
    difference = float((together[1] - alone[0]).abs().max())
    _expect(difference <= 1e-5, f"they differ by {difference:.2g}")


def _saved_weights_suffice(name: str, overrides: dict[str, Any]) -> None:
    """the submodules in `needs`, saved and loaded, give the same samples."""
    model = build(name, overrides)
    _make_steps(model, 1)
    other = build(name, overrides)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        model.save(path)
        other.load(path)
    first, second = (m.eval().sample(Noise([4])) for m in (model, other))
    _expect(torch.equal(first, second), "the loaded model samples another volume")


def _resume_is_exact(name: str, overrides: dict[str, Any]) -> None:
    """training killed and resumed equals uninterrupted training, bit for bit."""
    config = build(name, overrides).config
    config = config.model_copy(update={"budget": 4 * config.batch_size})
    volumes, weights = phantoms(5, config.array_shape), []
    with tempfile.TemporaryDirectory() as folder:
        for label, stops in (("unbroken", ()), ("broken", (1, 2))):
            target = Run(Path(folder) / label)
            settings = config.model_dump(mode="json")
            RunRecord(kind="model", model=name, seed=0, cohort_digest="", config=settings).write(
                target.record
            )
            for stop in (*stops, None):
                seed_everything(0)
                model = get_model(name)(config)
                steps = training.training_steps(model, volumes, target, Context(CPU), checkpoint_seconds=-1)
                for _ in itertools.islice(steps, stop):
                    pass
            weights.append(target.weights.read_bytes())
    _expect(weights[0] == weights[1], "the weights differ")


def _counts_agree(name: str, overrides: dict[str, Any]) -> None:
    """it can be built without memory, with the same parameter counts."""
    real = build(name, overrides)
    with torch.device("meta"):
        empty = type(real)(real.config)
    _expect(empty.parameter_count() == real.parameter_count(), "counts differ on the meta device")


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Between two sets of volumes `[N,1,D,H,W]`, per root voxel (Szekely and Rizzo 2013).

    2 E|a - b| - E|a - a'| - E|b - b'|, unbiased: about 0 for two draws from one distribution.
    """
    a, b = a.flatten(1), b.flatten(1)
    within = sum(torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b))
    return float((2 * torch.cdist(a, b).mean() - within) / a.shape[1] ** 0.5)


def _training_brings_samples_nearer(name: str, overrides: dict[str, Any]) -> None:
    """a short training of the smallest configuration brings samples nearer to the training volumes than noise is."""
    model = build(name, {**get_model(name).SMALLEST, **overrides})
    volumes = phantoms(16, model.config.array_shape)
    real = torch.from_numpy(to_model_range(volumes.crop(model.slab).stack()[:, None]))
    noise = 2 * Noise(range(8)).uniform(*real.shape[1:]) - 1
    untrained = energy_distance(_eight_samples(model), real)
    for stage in range(len(model.stages)):
        model.stage = stage
        batches = training.Batches(volumes, model.config.batch_size, 0, CPU)
        while batches.seen < SHORT_TRAINING:
            model.training_step(batches.next)
    trained, limit = energy_distance(_eight_samples(model), real), energy_distance(noise, real)
    _expect(
        trained < NEARER * min(limit, untrained),
        f"after {SHORT_TRAINING} volumes a stage the samples are at energy distance {trained:.3f} from the training "
        f"volumes, which must be below {NEARER} times that of uniform noise ({limit:.3f}) and of samples before the "
        f"training ({untrained:.3f}). Look at the samples and at the losses",
    )


def _eight_samples(model: Generator) -> torch.Tensor:
    model.refresh_batchnorm(0)
    model.eval()
    samples = torch.cat([model.sample(Noise([i, i + 1])) for i in range(0, 8, 2)])
    model.train()
    return samples


GENERATOR_CHECKS: tuple[Check, ...] = (
    _says_what_it_is,
    _losses_are_named_and_finite,
    _every_parameter_moves,
    _samples_are_volumes,
    _volumes_do_not_depend_on_the_batch,
    _saved_weights_suffice,
    _resume_is_exact,
    _counts_agree,
    _training_brings_samples_nearer,
)


def _scored(name: str, samples: VolumeSet) -> Score:
    from mribench.metrics.arrays.cache import Arrays
    from mribench.metrics.scoring import score

    sets = {
        "samples": samples,
        "reference": phantoms(8, 32, seed=1),
        "train": phantoms(8, 32, seed=2),
        "holdout": phantoms(8, 32, seed=3),
    }
    return score(get_metric(name), Arrays(sets, None))


def _value_is_inside_its_interval(name: str, _: dict[str, Any]) -> None:
    """the value is finite, inside its interval, and the score survives JSON."""
    score = _scored(name, phantoms(8, 32, seed=4))
    _expect(np.isfinite(score.value), f"value {score.value}")
    _expect(score.low <= score.value <= score.high, f"{score.value} outside [{score.low}, {score.high}]")
    _expect(Score.model_validate_json(score.model_dump_json()) == score, "JSON changed the score")


def _order_is_irrelevant(name: str, _: dict[str, Any]) -> None:
    """the order of the volumes is irrelevant (1e-9 relative)."""
    volumes = phantoms(8, 32, seed=4)
    first, second = (_scored(name, v).value for v in (volumes, volumes.subset(range(7, -1, -1))))
    _expect(abs(first - second) <= 1e-9 * max(abs(first), 1e-3), f"{first} became {second}")


def _noise_is_not_better(name: str, _: dict[str, Any]) -> None:
    """noise never scores better than clean volumes, for a metric that detects noise."""
    if "noise" not in get_metric(name).detects:
        return
    clean, noisy = (_scored(name, phantoms(8, 32, seed=4, noise=level)) for level in (0.0, 0.5))
    _expect(clean.rank_key < noisy.rank_key, f"clean {clean.rank_key}, noisy {noisy.rank_key}")


def _definition_is_in_the_signature(name: str, _: dict[str, Any]) -> None:
    """every setting of the definition stands in the signature."""
    score = _scored(name, phantoms(8, 32, seed=4))
    _expect(score.signature.startswith(f"metric:{name}|"), score.signature)
    _expect("n:" in score.signature and bool(score.version), score.signature)


METRIC_CHECKS: tuple[Check, ...] = (
    _value_is_inside_its_interval,
    _order_is_irrelevant,
    _noise_is_not_better,
    _definition_is_in_the_signature,
)
