"""Samples -> scores: of two folders or arrays, of one entrant of a bench; and the joint t-SNE of all entrants."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mribench import __version__, processes
from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Bench, Run
from mribench.bench.records import EmbeddingRecord, NearestPair, NearestRecord, ScoresRecord
from mribench.data.cohort import Cohort
from mribench.data.folder import AFFINE_TOLERANCE, open_folder
from mribench.data.loaded import loaded_set
from mribench.data.nifti import Rescale
from mribench.data.volume_set import VolumeSet, check_brightness
from mribench.errors import MribenchError
from mribench.files import digest_file, digest_json, write_text
from mribench.metrics import METRIC_REGISTRY, default_metrics, get_metric, plugin_metrics
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.arrays.distances import join_views
from mribench.metrics.features.slices import EXTRACTOR_REGISTRY, get_extractor
from mribench.metrics.gates.judge import judge
from mribench.metrics.memorisation import COPY_RATIO, copies
from mribench.metrics.regions import RegionRow
from mribench.metrics.score import Missing, Score
from mribench.metrics.scoring import score_all
from mribench.metrics.statistics.regions import compare_regions
from mribench.metrics.statistics.tsne import joint_embedding
from mribench.runtime import Context, make_context
from mribench.scored import Evaluation
from mribench.training import Outcome

log = logging.getLogger(__name__)

NO_HOLDOUT = "protocol {name} has no held-out volumes, so there is nothing to compare copies with"
DEFAULT_EXTRACTOR = "effnet-lite0"

Source = VolumeSet | Path | str | Any  # volumes of one role: a folder, or what `loaded_set` takes


def evaluate(
    samples: Source,
    reference: Source,
    train: Source | None = None,
    holdout: Source | None = None,
    *,
    metrics: Sequence[str] | None = None,
    extractor: str = DEFAULT_EXTRACTOR,
    rescale: Rescale | None = None,
    cache: Path | None = None,
    device: str = "auto",
    context: Context | None = None,
) -> Evaluation:
    """Score samples against real volumes: folders of NIfTI, or what a program holds, in [0,1].

    A program may give arrays or tensors `[N,D,H,W]` or `[N,1,D,H,W]`, any Dataset or DataLoader (of PyTorch, MONAI or
    TorchIO), or an iterable of volumes.

    With `train` (what the generator was trained on) copies are searched; where no `holdout` is given, the
    reference volumes serve as held-out ones. `metrics` defaults to all but opt-in ones, of plug-ins too, and
    fid_3d where its weights are given. `rescale` maps intensities (low, high) to 0 and 1. `cache` keeps
    expensive arrays for the next call. `context` (see `make_context`) replaces `device` and adds weights, memory and
    progress.
    Raises MribenchError when volumes are unusable or do not share one grid, UsageError for an unknown metric.

    >>> import numpy as np
    >>> volumes = np.random.default_rng(0).random((12, 32, 32, 32), dtype=np.float32)
    >>> evaluation = evaluate(volumes[:6], volumes[6:], metrics=("ms_ssim",), device="cpu")
    >>> 0 < evaluation.score("ms_ssim").value < 1
    True
    """
    context = context or make_context(device)
    given = {"samples": samples, "reference": reference, "train": train, "holdout": holdout}
    sets = processes.first_alone(
        lambda: {
            role: _opened(source, role, rescale, cache, context)
            for role, source in given.items()
            if source is not None
        }
    )
    for role in ("samples", "reference"):
        check_brightness(sets[role])
    if "train" in sets and "holdout" not in sets:
        sets["holdout"] = sets["reference"]
    _warn_of_other_grids(sets)
    if metrics is None:
        metrics = [*default_metrics(), *plugin_metrics(), *(["fid_3d"] if context.weights_3d else [])]
    arrays = Arrays(sets, cache, extractor, context)
    scores, missing = score_all(arrays, metrics)
    return Evaluation(scores, missing, _regions(arrays, scores), judge(arrays))


def _regions(arrays: Arrays, scores: Sequence[Score]) -> tuple[RegionRow, ...]:
    if "anatomy" not in {score.metric for score in scores}:
        return ()
    return tuple(compare_regions(arrays.region_volumes("reference"), arrays.region_volumes("samples")))


def _opened(
    source: Source, role: str, rescale: Rescale | None, cache: Path | None, context: Context
) -> VolumeSet:
    if isinstance(source, VolumeSet):
        return source
    if not isinstance(source, Path | str):
        return loaded_set(source, role, rescale)
    name = "real" if role == "reference" else role
    return open_folder(
        Path(source),
        name=name,
        rescale=rescale,
        digests_cache=cache / f"checks-{name}.json" if cache else None,
        progress=lambda _, done, total: context.progress(f"read {name}", done, total),
    )


def _warn_of_other_grids(sets: Mapping[str, VolumeSet]) -> None:
    """Files without a true affine are common, so grids that differ are no error; but axes may be swapped."""
    real = sets["reference"]
    for volumes in sets.values():
        if volumes.affine is None or real.affine is None:
            continue
        apart = float(np.abs(np.subtract(volumes.affine, real.affine)).max())
        if apart > AFFINE_TOLERANCE:
            log.warning(
                "The affines of %s and %s differ by up to %.4g, but scores compare voxel by voxel. Make sure that both "
                "have the same orientation, voxel size and field of view.",
                volumes.name,
                real.name,
                apart,
            )


def evaluate_run(
    bench: Bench, cohort: Cohort, run: Run, context: Context, *, overwrite: bool = False
) -> tuple[Outcome, list[Missing]]:
    """Score one entrant and write scores.json and nearest.json, unless they are up to date.

    Returns the metrics that were tried now and have no score. Scores of plug-ins that are not installed here are
    kept as they are. Raises MribenchError when samples are missing, altered or not of the run's present weights.
    """
    outcome, stamp = processes.from_first(lambda: _what_to_do(bench, cohort, run, context, overwrite))
    if outcome != "done":
        return outcome, []
    protocol = bench.protocol
    with bench.run_lock(run):
        sets = comparison_sets(cohort, run.samples())
        arrays = Arrays(sets, bench.arrays, protocol.evaluation.extractor, context)
        scores, missing = _score(bench, run, arrays)
        nearest = _nearest(arrays, stamp)
        record = ScoresRecord(
            entrant=run.name,
            made_from=stamp,
            protocol_digest=protocol.digest,
            samples_digest=sets["samples"].digest,
            reference_digest=sets["reference"].digest,
            scores=tuple(scores),
            missing=tuple(missing),
            regions=_regions(arrays, scores),
            gates=judge(arrays, protocol.evaluation.gates, own=_own_sets(run)),
            seconds=round(sum(score.seconds for score in scores), 3),
        )
        if processes.is_first():
            nearest.write(run.nearest)  # first, so that scores.json means done
            record.write(run.scores)
        processes.gather(None, "scores")
    return "done", missing


def _what_to_do(
    bench: Bench, cohort: Cohort, run: Run, context: Context, overwrite: bool
) -> tuple[Outcome, str]:
    """ "done" where an entrant is to be scored, and the digest of what decides its scores."""
    _check_samples(bench, run)
    if reason := _why_no_extractor(bench):
        if overwrite or not run.scores.exists():
            raise MribenchError(reason)
        return "kept", ""
    stamp = _made_from(bench, cohort, run, context)
    scored = not overwrite and _is_scored(run, stamp, bench.protocol.evaluation.metrics)
    return ("up to date" if scored else "done"), stamp


def _score(bench: Bench, run: Run, arrays: Arrays) -> tuple[list[Score], list[Missing]]:
    """Every metric of the protocol: computed now or, where its plug-in cannot be used, as scores.json has it."""
    metrics = bench.protocol.evaluation.metrics
    unusable = {name: reason for name in metrics if (reason := _why_no_metric(bench, name))}
    earlier = processes.from_first(lambda: _scores_on_disk(run, arrays, unusable))
    usable = [name for name in metrics if name not in unusable]
    reasons = {name: reason for name, reason in unusable.items() if name not in earlier}
    if "holdout" not in arrays.sets:
        no_holdout = NO_HOLDOUT.format(name=bench.protocol.name)
        reasons |= {name: no_holdout for name in usable if "holdout" in get_metric(name).needs}
    scores, missing = score_all(arrays, [name for name in usable if name not in reasons])
    return [*scores, *earlier.values()], [*(_missing(*item) for item in reasons.items()), *missing]


def _missing(metric: str, reason: str) -> Missing:
    """A plug-in that fails may be repaired; everything else can be had only with other volumes or packages."""
    fails = metric in METRIC_REGISTRY.names() and bool(METRIC_REGISTRY.why_unusable(metric))
    package = METRIC_REGISTRY.package(metric)
    return Missing(metric=metric, reason=reason, by_design=not fails, package=package)


def _why_no_metric(bench: Bench, name: str) -> str:
    return METRIC_REGISTRY.why_unusable(name, bench.packages.get(f"metric {name}", ""))


def _scores_on_disk(run: Run, arrays: Arrays, metrics: Collection[str]) -> dict[str, Score]:
    """Those of `metrics` that scores.json has of exactly these volumes."""
    if not (metrics and run.scores.exists()):
        return {}
    try:
        record = ScoresRecord.read(run.scores)
    except MribenchError as error:
        log.warning("%s cannot be used: %s", run.scores, error)
        return {}
    digests = {name: volumes.digest for name, volumes in arrays.sets.items()}
    return {
        score.metric: score
        for score in record.scores
        if score.metric in metrics and score.digests == {side: digests.get(side) for side in score.n}
    }


def _why_no_extractor(bench: Bench) -> str:
    """Why nothing can be scored here; "" when the protocol's extractor can be used."""
    name = bench.protocol.evaluation.extractor
    reason = EXTRACTOR_REGISTRY.why_unusable(name, bench.packages.get(f"extractor {name}", ""))
    return f"The extractor {name!r} of this bench's protocol cannot be used: {reason}." if reason else ""


def comparison_sets(cohort: Cohort, samples: VolumeSet) -> dict[str, VolumeSet]:
    """The sets that every metric works on: samples, reference, train and, where there is one, holdout."""
    sets = {"samples": samples, "reference": cohort.set("reference"), "train": cohort.set("train")}
    holdout = cohort.set("holdout")
    return {**sets, "holdout": holdout} if len(holdout) else sets


def _check_samples(bench: Bench, run: Run) -> None:
    """Samples must be as recorded; those of a model also complete and made by its present weights."""
    record, wanted = run.read_samples(), bench.protocol.evaluation.samples
    if run.read_record().kind == "model":
        count = len(record.files)
        current = record.made_from == run.samples_stamp(record.sampler)
        if count != wanted or not current:
            raise MribenchError(
                f"{run.name} must have {wanted} samples of its present weights to be scored, but has {count}"
                f"{'' if current else ' of others'}. Run: {run.command('generate')}"
            )
    run.check_samples()


def _made_from(bench: Bench, cohort: Cohort, run: Run, context: Context) -> str:
    """Digest of everything that decides an entrant's scores."""
    return digest_json(
        {
            "protocol": bench.protocol.digest,
            "cohort": cohort.digest,
            "samples": run.samples().digest,
            "extractor": get_extractor(bench.protocol.evaluation.extractor).definition(),
            "weights": _weights_digests(context),
            "gates": bench.protocol.evaluation.gates.model_dump(),
            "mribench": __version__,  # a new version may define a metric otherwise
        }
    )


def _weights_digests(context: Context) -> list[str | None]:
    return [digest_file(path) if path else None for path in (context.weights, context.weights_3d)]


def _is_scored(run: Run, stamp: str, metrics: Sequence[str]) -> bool:
    """Whether scores.json and nearest.json were made from exactly this, and nothing failed that could succeed.

    A plug-in that is installed now must be of the package and version that made its scores.
    """
    if not (run.scores.exists() and run.nearest.exists()):
        return False
    try:
        record, nearest = ScoresRecord.read(run.scores), NearestRecord.read(run.nearest)
        packages = {score.metric: score.package for score in record.scores}
        packages |= {absent.metric: absent.package for absent in record.missing}
        same = all(METRIC_REGISTRY.package(name) in ("", packages.get(name)) for name in metrics)
        current = record.made_from == nearest.made_from == stamp
        return same and current and all(m.by_design for m in record.missing)
    except MribenchError as error:
        log.warning("%s cannot be used (%s); scoring %s again", run.scores, error, run.name)
        return False


def _own_sets(run: Run) -> list[str]:
    """The set that a control is made from by design; copies of training volumes are what `train_copy` must show."""
    record = run.read_record()
    control = CONTROLS.get(record.model or "") if record.kind == "control" else None
    source = "holdout" if record.door_of else control.draws_on if control else None
    return [source] if source and source != "train" else []


def _nearest(arrays: Arrays, stamp: str) -> NearestRecord:
    """Every sample's most similar training volume in the better orientation, the most similar pair first."""
    search = copies(arrays)
    samples, train = arrays.sets["samples"], arrays.sets["train"]
    pairs = [
        NearestPair(
            sample=samples.names[i],
            sample_index=i,
            neighbour=train.names[search.neighbour[i]],
            neighbour_index=int(search.neighbour[i]),
            mirrored=bool(search.mirrored[i]),
            similarity=float(search.similarity[i]),
            second=float(search.second[i]),
            ratio=float(search.ratio[i]),
            copied=bool(search.copied[i]),
        )
        for i in range(len(samples))
    ]
    return NearestRecord(
        made_from=stamp,
        definition=arrays.similarity,
        copy_threshold=COPY_RATIO,
        pairs=tuple(sorted(pairs, key=lambda pair: -pair.similarity)),
    )


def embed(bench: Bench, cohort: Cohort, runs: Sequence[Run], context: Context) -> None:
    """One joint t-SNE of the training volumes and every entrant's first samples -> embedding/tsne.csv.

    Features are those of the headline MMD. Entrants that make only a slab have other features and stay out.
    """
    evaluation = bench.protocol.evaluation
    whole = [run for run in runs if run.samples().slab is None]
    if reason := _why_no_extractor(bench):
        log.warning("The t-SNE stays as it is. %s", reason)
        return
    stamp = digest_json(
        {
            "cohort": cohort.digest,
            "entrants": {run.name: run.samples().digest for run in whole},
            "extractor": evaluation.extractor,
            "weights": _weights_digests(context)[:1],
            "count": evaluation.tsne_samples,
        }
    )
    with bench.lock("embedding"):
        if _is_embedded(bench.embedding, stamp):
            return
        features = {}
        for run in whole:
            sets = comparison_sets(cohort, run.samples())
            arrays = Arrays(sets, bench.arrays, evaluation.extractor, context)
            features[run.name] = join_views(arrays.features, "samples")[: evaluation.tsne_samples]
            features[""] = join_views(arrays.features, "train")
        points = joint_embedding(features, seed=bench.protocol.seed)
        table = pd.DataFrame(_embedding_rows(cohort, whole, points))
        write_text(bench.embedding, table.to_csv(index=False))
        record = EmbeddingRecord(made_from=stamp, table_digest=digest_file(bench.embedding))
        record.write(bench.embedding.with_suffix(".json"))


def _is_embedded(table: Path, stamp: str) -> bool:
    """Whether tsne.csv was made from exactly this, and is what was written."""
    record = table.with_suffix(".json")
    if not (record.exists() and table.exists()):
        return False
    try:
        embedding = EmbeddingRecord.read(record)
    except MribenchError as error:
        log.warning("%s Making the t-SNE again.", error)
        return False
    return embedding.made_from == stamp and embedding.table_digest == digest_file(table)


def _embedding_rows(
    cohort: Cohort, runs: Sequence[Run], points: dict[str, np.ndarray]
) -> list[dict[str, str | float]]:
    rows = [
        _embedding_row("train", "", name, point)
        for name, point in zip(cohort.set("train").names, points[""], strict=True)
    ]
    for run in runs:
        nearest = {pair.sample: pair.neighbour for pair in NearestRecord.read(run.nearest).pairs}
        for name, point in zip(run.samples().names, points[run.name], strict=False):
            rows.append(_embedding_row("sample", run.name, name, point, nearest.get(name, "")))
    return rows


def _embedding_row(
    kind: str, entrant: str, name: str, point: np.ndarray, nearest: str = ""
) -> dict[str, str | float]:
    x, y = map(float, point)
    return {"kind": kind, "entrant": entrant, "name": name, "x": x, "y": y, "nearest": nearest}
