"""A bench without training or metrics: 16^3 blobs as volumes and made-up scores."""

from __future__ import annotations

import copy
import json
import shutil
import zipfile

import numpy as np
import pytest

from mribench.bench import bundles
from mribench.bench.bundles import write_bundle
from mribench.bench.controls import CONTROLS
from mribench.bench.folder import create_bench, open_bench
from mribench.bench.protocol import Protocol
from mribench.data.cohort import open_cohort
from mribench.data.grid import paper_grid, quantise
from mribench.data.nifti import write_nifti
from mribench.evaluation import evaluate_run
from mribench.files import digest_json, digest_volume, write_array, write_json, write_text
from mribench.generation import add_folder
from mribench.metrics.score import Score
from mribench.metrics.statistics.jackknife import jackknife_groups
from mribench.reports.export import bundle_of
from mribench.reports.records import Entrant
from mribench.runtime import make_context
from mribench.samples import slab_affine

SIZE = 16
CENTRAL = ("fid_a_central", "fid_c_central", "fid_s_central")
# What a slab lacks -> what it needs.
LACKING = {
    "fid_c": "whole coronal slices",
    "fid_s": "whole sagittal slices",
    "fid_c_central": "whole coronal slices",
    "fid_s_central": "whole sagittal slices",
    "anatomy": "whole volumes",
}
FAMILY = {
    "copy_rate": "memorisation",
    "mmd_voxel": "mmd",
    "slice_consistency": "consistency",
    **dict.fromkeys(("fid_a", "fid_c", "fid_s", *CENTRAL), "fid"),
}
TARGET = dict.fromkeys(("mmd", "mmd_voxel", "anatomy", "slice_consistency"), 0.0) | {
    "ms_ssim": 0.8,
    "memorisation": 0.5,
}
RANKED = ("ms_ssim", "mmd", "fid_a", "fid_c", "fid_s", "memorisation")
COMPANIONS = ("copy_rate", *CENTRAL, "slice_consistency")
SHOWN = (*RANKED, *COMPANIONS, "anatomy")


def score(
    metric, value, *, spread=0.001, samples=4, reference=3, version="v1", settings="extractor:a", **other
):
    """A score whose replicates differ from its value by about `spread`."""
    n = {"samples": samples, "reference": reference}
    sides = {side: len(jackknife_groups(count)) for side, count in n.items()}
    replicates = {
        side: tuple(value + spread * ((-1) ** i) / (1 + i) for i in range(count))
        for side, count in sides.items()
    }
    fields = {
        "metric": metric,
        "title": metric.upper(),
        "unit": "",
        "family": FAMILY.get(metric, metric),
        "ranked": metric not in ("mmd_voxel", *COMPANIONS),
        "value": value,
        "low": value - 2 * spread,
        "high": value + 2 * spread,
        "interval": "jackknife over volumes",
        "better": "match" if metric in TARGET else "lower",
        "target": TARGET.get(metric),
        "n": n,
        "version": version,
        "signature": f"metric:{metric}|{settings}|n:{samples}",
        "digests": {},
        "seconds": 0.1,
        "replicates": replicates,
    }
    return Score(**{**fields, **other})


def all_scores(quality, **other):
    """Scores of the metrics that have a column; smaller quality is better in each."""
    values = (
        0.8 + quality / 10,
        quality / 100,
        10 * quality,
        11 * quality,
        12 * quality,
        0.5 + quality / 20,
        0.0,
        10 * quality,
        11 * quality,
        12 * quality,
        quality,
        quality / 50,
    )
    return {metric: score(metric, value, **other) for metric, value in zip(SHOWN, values, strict=True)}


def entrant(name, quality=1.0, kind="model", **other):
    scores = other.pop("scores", None)
    return Entrant(
        name=name, title=name, kind=kind, scores=all_scores(quality) if scores is None else scores, **other
    )


def volume(seed, size=SIZE):
    """A blob `[D,H,W]` in [0,1]; no axis is like another."""
    rng = np.random.default_rng(seed)
    d, h, w = np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij")
    radius = (d / 0.9) ** 2 + (h / 0.7) ** 2 + (w / rng.uniform(0.4, 0.6)) ** 2
    return np.clip((1.2 - radius) * 0.7 + 0.02 * rng.random(d.shape), 0, 1).astype(np.float32)


class BenchMaker:
    """Makes a bench in a folder and adds runs to it."""

    def __init__(self, folder, protocol="trial", **cohort):
        roles = {"train": 4, "reference": 3, "holdout": 3, **cohort}
        contract = Protocol(
            name=protocol,
            version=1,
            seed=1,
            cohort={"source": "simulated", "size": SIZE, **roles},
            evaluation={"samples": 4, "tsne_samples": 4},
        )
        self.bench = create_bench(folder, contract)
        names = ["train"] * 4 + ["reference"] * 3 + ["holdout"] * roles["holdout"]
        self.cohort = self._write_cohort(names)

    def _write_cohort(self, roles):
        folder, grid, volumes = self.bench.cohort_folder, self.bench.protocol.cohort.voxels, []
        for i, role in enumerate(roles):
            voxels = quantise(volume(i))
            write_array(folder / "volumes" / f"v{i}.npy", voxels)
            digest = digest_volume(voxels, grid.affine)
            volumes.append({"name": f"v{i}", "roles": [role], "digest": digest, "record": {}})
        record = {
            "source": "simulated",
            "recipe": {"name": "blobs"},
            "recipe_digest": digest_json({"name": "blobs"}),
            "protocol_digest": self.bench.protocol.digest,
            "grid": grid.model_dump(mode="json"),
            "volumes": volumes,
            "problems": [{"name": "sub-09", "reason": "constant <b>volume</b>"}],
            "digest": digest_json(volumes),
        }
        write_json(folder / "volumes.json", record)
        return open_cohort(folder)

    def add(
        self, name, quality=1.0, *, kind="model", title=None, slab=None, scores=None, missing=(), record=()
    ):
        """A complete run; returns it so that a test can damage it."""
        run = self.bench.run(name)
        write_json(
            run.record,
            {
                "kind": kind,
                "model": name.partition("-s")[0] if kind != "folder" else None,
                "title": title or (CONTROLS[name].title if kind == "control" else name.upper()),
                "what": CONTROLS[name].what if kind == "control" else "",
                "preset": "tiny",
                "config": {"size": SIZE},
                "seed": 0,
                "cohort_digest": self.cohort.digest,
                "protocol_digest": self.bench.protocol.digest,
                "parameters": {"unet": 1000, "head": 234} if kind == "model" else {},
                "versions": {},
                **dict(record),
            },
        )
        self._samples(run, slab)
        self._scores(run, all_scores(quality) if scores is None else scores, missing)
        if kind == "model":
            self._training(run)
        return run

    def _samples(self, run, slab):
        affine, files = slab_affine(self.cohort.grid, slab), []
        for i in range(4):
            voxels = volume([*run.name.encode(), i])[slice(*(slab or (None,)))]
            path = run.samples_folder / f"{i:06d}.nii.gz"
            write_nifti(path, voxels, affine)
            files.append(
                {"name": path.name, "digest": digest_volume(quantise(voxels), affine), "seconds": 0.5}
            )
        shape = list(voxels.shape)
        write_json(
            run.samples_record, {"made_from": "x", "seed": 0, "slab": slab, "shape": shape, "files": files}
        )

    def _scores(self, run, scores, missing):
        samples = run.samples()
        write_json(
            run.scores,
            {
                "schema": "mribench/scores/2",
                "entrant": run.name,
                "protocol_digest": self.bench.protocol.digest,
                "samples_digest": samples.digest,
                "reference_digest": self.cohort.set("reference").digest,
                "scores": [one.model_dump(mode="json") for one in scores.values()],
                "missing": [{"metric": m, "reason": why} for m, why in missing],
            },
        )
        pair = {"sample": samples.names[1], "sample_index": 1, "neighbour": "v2", "neighbour_index": 2}
        pairs = [{**pair, "similarity": 0.99, "second": 0.9}]
        write_json(
            run.nearest,
            {"schema": "mribench/nearest/2", "definition": "ms", "copy_threshold": 0.5, "pairs": pairs},
        )

    def _training(self, run):
        steps = [
            {"step": s, "seen": 2 * s, "seconds": s / 10, "losses": {"loss": 1 / s}} for s in range(1, 9)
        ]
        write_text(run.progress, "".join(json.dumps(step) + "\n" for step in steps))
        device = {"device": "cpu", "name": "x86_64", "threads": 1, "precision": "fp32"}
        weights = {"digest": digest_json(run.name), "run_digest": "x", "step": 8, "seen": 16, "seconds": 0.8}
        write_json(run.weights_record, {**weights, "device": device})

    def embed(self, *names):
        rows = ["kind,entrant,name,x,y,nearest"] + [f"train,,v{i},{i},{i % 2}," for i in range(4)]
        rows += [f"sample,{name},{i:06d}.nii.gz,{i},0.5,v{i % 2}" for name in names for i in range(4)]
        write_text(self.bench.embedding, "\n".join(rows) + "\n")


@pytest.fixture
def make_score():
    return score


@pytest.fixture
def make_scores():
    return all_scores


@pytest.fixture
def make_entrant():
    return entrant


@pytest.fixture
def make_bench(tmp_path):
    return lambda **cohort: BenchMaker(tmp_path / "bench", **cohort)


@pytest.fixture(scope="session")
def shared_bench(tmp_path_factory):
    """Three models (one of them a slab), two controls, an embedding: for tests that only look."""
    return fill(BenchMaker(tmp_path_factory.mktemp("shared") / "bench"))


@pytest.fixture
def full_bench(shared_bench, tmp_path):
    """A copy that a test may damage."""
    folder = tmp_path / "bench"
    shutil.copytree(shared_bench.bench.folder, folder, ignore=shutil.ignore_patterns("report"))
    maker = copy.copy(shared_bench)
    maker.bench, maker.cohort = open_bench(folder), open_cohort(folder / "cohort")
    return maker


def fill(maker):
    maker.add("cdpm", 0.1, title="cDPM")
    maker.add("ha_gan", 0.4, title="HA-GAN")
    scores = {m: s for m, s in all_scores(0.2).items() if m not in LACKING}
    missing = [(metric, f"needs {LACKING[metric]}") for metric in LACKING]
    maker.add("dpm3d", title="3D-DPM", slab=(5, 11), scores=scores, missing=missing)
    maker.add("noise", 9, kind="control")
    maker.add("real_heldout", 0.01, kind="control")
    maker.embed("cdpm", "ha_gan", "noise", "real_heldout")
    return maker


LABORATORY_METRICS = ("ms_ssim", "mmd_voxel", "memorisation")


def laboratory(folder, volumes, train_seed, entrants):
    """A bench on prepared volumes whose reference is the same everywhere, and whose train volumes are its own."""
    protocol = Protocol(
        name="shared",
        version=1,
        seed=1,
        cohort={"source": "prepared", "size": SIZE, "train": 6, "reference": 6, "holdout": 6},
        evaluation={"samples": 5, "tsne_samples": 4, "metrics": LABORATORY_METRICS},
    )
    bench, grid = create_bench(folder, protocol), paper_grid(SIZE)
    entries = []
    for role, first in (("train", train_seed), ("reference", 0), ("holdout", 50)):
        for i in range(6):
            name, voxels = f"sub-{role}-{first + i:03d}", quantise(volume(first + i))
            write_array(bench.cohort_folder / "volumes" / f"{name}.npy", voxels)
            digest = digest_volume(voxels, grid.affine)
            entries.append({"name": name, "roles": [role], "digest": digest, "record": {}})
    record = {
        "source": "prepared", "recipe": {}, "recipe_digest": "r", "protocol_digest": protocol.digest,
        "grid": grid.model_dump(mode="json"), "volumes": entries, "digest": digest_json(entries),
        "problems": [{"name": "sub-refused-1", "reason": "same subject as sub-train-100"}],
    }  # fmt: skip
    write_json(bench.cohort_folder / "volumes.json", record)
    cohort, context = open_cohort(bench.cohort_folder), make_context("cpu")
    for name, seed in entrants.items():
        source = volumes / name
        for i in range(5):
            write_nifti(source / f"v{i}.nii.gz", volume(seed + i) ** (1 + seed / 5000), grid.affine)
        add_folder(bench, name, source, None, context)
        evaluate_run(bench, cohort, bench.run(name), context)
    return open_bench(folder)


@pytest.fixture(scope="session")
def laboratories(tmp_path_factory):
    """Two benches with an entrant each on different cohorts with one reference, and the bench that has both."""
    room = tmp_path_factory.mktemp("laboratories")
    first = laboratory(room / "a", room / "v", 100, {"ours": 1000})
    second = laboratory(room / "b", room / "v", 200, {"theirs": 2000})
    joint = laboratory(room / "joint", room / "v", 100, {"ours": 1000, "theirs": 2000})
    return first, second, joint


@pytest.fixture(scope="session")
def travelled(laboratories, tmp_path_factory):
    """The bundles of the two benches, as files."""
    paths = [tmp_path_factory.mktemp("bundles") / f"{name}.zip" for name in ("a", "b")]
    for bench, path in zip(laboratories, paths, strict=False):
        write_bundle(path, bundle_of(bench))
    return paths


def rewrite(path, change, out):
    """A bundle with another bundle.json whose digest is right again, as a forger would write it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    value = json.loads(members["bundle.json"])
    change(value)
    value["sha256"] = digest_json({k: v for k, v in value.items() if k != "sha256"})
    members["bundle.json"] = (json.dumps(value, indent=1) + "\n").encode()
    out.write_bytes(bundles._zipped(members))
    return out


@pytest.fixture
def rewritten():
    return rewrite
