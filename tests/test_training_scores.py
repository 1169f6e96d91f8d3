"""Scores during a training: recorded, drawn, and without any influence on the weights."""

from __future__ import annotations

import itertools
import random
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

import mribench
from mribench import training
from mribench.bench.folder import Run, open_bench
from mribench.bench.records import RunRecord, StepScore, TrainingStep
from mribench.cli import main
from mribench.data.volume_set import volume_set
from mribench.errors import UsageError
from mribench.files import read_json_lines
from mribench.models import get_model
from mribench.reports.page.figures import training_curves
from mribench.runtime import Context, random_state_kept
from mribench.training import Scorer, load_generator, training_steps
from mribench.training_scores import METRICS, SAMPLES, TensorBoard, TrainingScores

SETTINGS = {
    "cdpm": {
        "base": 8,
        "multipliers": (1, 2),
        "tau_max": 6,
        "stage_slices": 3,
        "calls": 2,
        "mixing_sizes": (16,),
    },
    "gan_gp": {"channels": (8, 16), "latent": 12, "critic_steps": 1},
}
CPU = Context(torch.device("cpu"))


def smooth(seeds):
    volumes = [gaussian_filter(np.random.default_rng(seed).normal(size=(16, 16, 16)), 1.5) for seed in seeds]
    return np.clip(0.5 + np.array(volumes), 0, 1).astype(np.float32)


TRAIN, REFERENCE = volume_set(smooth(range(5)), "train"), volume_set(smooth(range(5, 11)), "reference")
COHORT = SimpleNamespace(set=lambda role: REFERENCE)


def new_run(folder, model) -> Run:
    run = Run(folder)
    config = get_model(model).build_config("tiny", size=16, budget=12, batch_size=2, **SETTINGS[model])
    settings = config.model_dump(mode="json")
    RunRecord(kind="model", model=model, config=settings, seed=3, cohort_digest="x").write(run.record)
    return run


def fit(run, scorer=None, **options):
    return training_steps(load_generator(run), TRAIN, run, CPU, scorer=scorer, **options)


def scorer(every=4):
    return Scorer(every, TrainingScores(COHORT, "effnet-lite0", CPU))


def state_of(run):
    """Everything that decides how a training goes on."""
    state = torch.load(run.checkpoint, weights_only=True)
    return {key: state[key] for key in ("step", "seen", "model", "optimizers")}


@pytest.mark.parametrize("model", SETTINGS)
def test_weights_and_state_are_the_same_bits_with_and_without_scores(tmp_path, model):
    plain, scored, broken = (new_run(tmp_path / name, model) for name in ("plain", "scored", "broken"))
    list(fit(plain))
    steps = list(fit(scored, scorer()))
    list(itertools.islice(fit(broken, scorer(), checkpoint_seconds=-1), 3))
    again = list(fit(broken, scorer()))
    for run in (scored, broken):
        assert run.weights.read_bytes() == plain.weights.read_bytes()
        torch.testing.assert_close(state_of(run), state_of(plain), rtol=0, atol=0)
    curve = {step.seen: step.scores for step in steps if step.scores}
    assert all(set(scores) == set(METRICS) for scores in curve.values())
    assert max(curve) == 12 and len(curve) == (3 if model == "cdpm" else len(curve))
    assert (
        curve[12] == {step.seen: step.scores for step in again}[12]
    )  # a resumed training has the same scores


def test_a_scorer_that_does_its_worst_leaves_no_trace(tmp_path):
    """Draws from every generator, moves every buffer, changes every mode."""

    def score(generator, seed):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        generator.eval()
        for buffer in generator.buffers():
            buffer.zero_()
        return {}

    runs = [new_run(tmp_path / name, "gan_gp") for name in "ab"]
    for run, each in zip(runs, (None, Scorer(1, score)), strict=True):
        list(fit(run, each))
    assert runs[0].weights.read_bytes() == runs[1].weights.read_bytes()
    torch.testing.assert_close(state_of(runs[0]), state_of(runs[1]), rtol=0, atol=0)


def test_random_numbers_go_on_as_they_would_have():
    def draws():
        return random.random(), np.random.random(), float(torch.rand(()))

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = draws()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with random_state_kept(torch.device("cpu")):
        assert draws() == expected
    assert draws() == expected


def test_samples_are_those_of_averaged_weights_with_their_own_statistics(tmp_path):
    """At the end of a training they are what its weights give from the same noise."""
    run, seen = new_run(tmp_path / "run", "gan_gp"), []
    scores = TrainingScores(COHORT, "effnet-lite0", CPU)

    def score(generator, seed):
        seen.append(scores._samples(generator, seed).stack())
        return {}

    list(fit(run, Scorer(100, score)))
    generator = load_generator(run)
    generator.load(run.weights)
    assert len(seen) == 1 and seen[0].shape == (SAMPLES, 16, 16, 16)
    assert np.array_equal(seen[0], scores._samples(generator, 3).stack())


def test_the_time_of_scoring_is_not_that_of_training(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])

    def score(generator, seed):
        now[0] += 1000
        return {}

    steps = list(fit(new_run(tmp_path / "run", "cdpm"), Scorer(1, score)))
    assert steps[-1].seconds < 1000


@pytest.fixture(scope="module")
def bench(tmp_path_factory, protocol_file):
    folder = tmp_path_factory.mktemp("scores")
    protocol = folder / "few.toml"
    protocol.write_text(re.sub("metrics = .*", 'metrics = ["ms_ssim"]', protocol_file.read_text()))
    arguments = ["train", "cdpm", "--bench", folder / "bench", "--protocol", protocol, "--score-every", 4]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return folder / "bench"


def test_scores_stand_in_training_jsonl_beside_the_losses(bench):
    lines, torn = read_json_lines(open_bench(bench).run("cdpm").progress)
    records = [TrainingStep.model_validate_json(line) for line in lines]
    scored = [record for record in records if record.scores]
    assert torn == 0 and [record.seen for record in scored] == [4, 8, 12]
    for record in scored:
        assert record.losses and set(record.scores) == {"mmd", "ms_ssim"}
        assert all(score.low <= score.value <= score.high for score in record.scores.values())
    steps = mribench.Bench(bench, device="cpu").training("cdpm")
    assert [step.seen for step in steps if step.scores] == [4, 8, 12]


def test_scores_are_drawn_below_the_losses():
    def record(i, scored):
        score = StepScore(value=1 / i, low=0.5 / i, high=2 / i, samples=8)
        scores = {"mmd": score, "ms_ssim": score} if scored else {}
        return TrainingStep(step=i, seen=4 * i, seconds=i, losses={"loss": 1 / i}, scores=scores)

    plain = training_curves([record(i, False) for i in range(1, 9)], "cDPM")
    drawn = training_curves([record(i, i % 2 == 0) for i in range(1, 9)], "cDPM")
    assert drawn.height > plain.height and drawn.width == plain.width
    assert drawn.alt.endswith("in 8 steps; scores: mmd, ms_ssim") and "scores" not in plain.alt


def stand_in(monkeypatch, written):
    """A TensorBoard that notes what it is given."""

    class SummaryWriter:
        def __init__(self, folder):
            written["folder"] = folder

        def add_scalar(self, name, value, step):
            written.setdefault(name, []).append((step, value))

        def close(self):
            written["closed"] = True

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


def test_tensorboard_gets_losses_and_scores_by_volumes_seen(bench, tmp_path, monkeypatch):
    written = {}
    stand_in(monkeypatch, written)
    mribench.Bench(bench, device="cpu").train(
        "cdpm", name="watched", budget=6, score_every=4, tensorboard=tmp_path
    )
    assert written["folder"] == str(tmp_path / "watched") and written["closed"]
    assert [step for step, _ in written["loss/loss"]] == [2, 4, 6]
    assert [step for step, _ in written["score/mmd"]] == [4, 6]


def test_a_missing_tensorboard_is_said_before_anything_is_trained(bench, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        TensorBoard(tmp_path, "run")
    arguments = ["train", "cdpm", "--seed", 9, "--bench", bench, "--tensorboard", tmp_path]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 2 and "pip install tensorboard" in result.stderr
    assert "cdpm-s9" not in mribench.Bench(bench, device="cpu").runs
