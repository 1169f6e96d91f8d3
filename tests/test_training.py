"""The loop: batches by position, resume bit by bit, refusal of what does not belong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import safetensors.torch
import torch

from mribench import files, training
from mribench.bench.folder import Run
from mribench.bench.records import RunRecord
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError
from mribench.models.cdpm import CDPM
from mribench.models.gan_gp import GANGP
from mribench.models.generator import Generator, GeneratorConfig
from mribench.runtime import Context
from mribench.training import load_generator, training_steps

SETTINGS = {
    "size": 16,
    "budget": 12,
    "base": 8,
    "multipliers": (1, 2),
    "tau_max": 6,
    "stage_slices": 3,
    "calls": 2,
    "mixing_sizes": (16,),
}
CPU = torch.device("cpu")


@pytest.fixture
def volumes():
    data = np.random.default_rng(0).random((5, 16, 16, 16), dtype=np.float32)
    names = tuple("abcde")
    return VolumeSet("train", names, names, (16, 16, 16), lambda i: data[i])


def write_run(folder, model, config) -> Run:
    run = Run(folder)
    settings = config.model_dump(mode="json")
    RunRecord(kind="model", model=model, config=settings, seed=3, cohort_digest="x").write(run.record)
    return run


def new_run(folder, **overrides) -> Run:
    return write_run(folder, "cdpm", CDPM.build_config("tiny", **{**SETTINGS, **overrides}))


def new_gan_run(folder, **overrides) -> Run:
    small = {"size": 16, "channels": (8, 16), "latent": 12, "budget": 12}
    return write_run(folder, "gan_gp", GANGP.build_config("tiny", **{**small, **overrides}))


def fit(run, volumes, **options):
    return training_steps(load_generator(run), volumes, run, Context(CPU), **options)


def test_batches_are_a_function_of_the_position(volumes):
    whole = training.Batches(volumes, 2, seed=1, device=CPU)
    stream = torch.cat([whole.next() for _ in range(10)])
    later = training.Batches(volumes, 2, seed=1, device=CPU)
    later.seen = 14
    assert torch.equal(later.next(), stream[14:16])
    assert stream.min() >= -1 and stream.max() <= 1
    first_pass = {float(v.sum()) for v in stream[:5]}
    assert first_pass == {float(v.sum()) for v in stream[5:10]} and len(first_pass) == 5


@pytest.mark.parametrize("batch_size", [1, 2])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, volumes, batch_size):
    unbroken = new_run(tmp_path / "unbroken", batch_size=batch_size)
    list(fit(unbroken, volumes))
    broken = new_run(tmp_path / "broken", batch_size=batch_size)
    for stop in (2, 3):
        list(itertools.islice(fit(broken, volumes, checkpoint_seconds=-1), stop))
    records = list(fit(broken, volumes))
    assert records[0].step == 6  # checkpoints were left after steps 2 and 5
    assert broken.weights.read_bytes() == unbroken.weights.read_bytes()
    assert broken.is_trained()


def test_weights_of_other_settings_or_bytes_do_not_count(tmp_path, volumes):
    run = new_run(tmp_path / "run")
    list(fit(run, volumes))
    assert run.is_trained()
    new_run(tmp_path / "run", learning_rate=1e-5)
    assert not run.is_trained()
    new_run(tmp_path / "run")
    run.weights.write_bytes(run.weights.read_bytes()[:-1] + b"x")
    assert not run.is_trained()


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, volumes):
    run = new_run(tmp_path / "run")
    list(itertools.islice(fit(run, volumes, checkpoint_seconds=-1), 2))
    new_run(tmp_path / "run", learning_rate=1e-5)
    with pytest.raises(MribenchError, match="--overwrite"):
        list(fit(run, volumes))


def test_a_torn_or_hostile_checkpoint_is_refused(tmp_path, volumes):
    run = new_run(tmp_path / "run")
    list(itertools.islice(fit(run, volumes, checkpoint_seconds=-1), 1))
    whole = run.checkpoint.read_bytes()
    run.checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MribenchError, match="whole checkpoint"):
        list(fit(run, volumes))

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"run_digest": Bomb()}, run.checkpoint)
    with pytest.raises(MribenchError, match="whole checkpoint"):
        list(fit(run, volumes))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("stop", "kind"),
    [(OSError(28, "No space left on device"), MribenchError), (SystemExit(1), SystemExit)],
    ids=["full disk", "SIGTERM"],
)
def test_what_stops_a_checkpoint_half_way_is_said_and_leaves_the_last_one(
    tmp_path, volumes, monkeypatch, stop, kind
):
    run = new_run(tmp_path / "run")
    list(itertools.islice(fit(run, volumes, checkpoint_seconds=-1), 2))
    before, write = run.checkpoint.read_bytes(), files._Hashed.write

    def stopped(file, data):
        if file._file.tell() > 5000:
            raise stop
        return write(file, data)

    monkeypatch.setattr(files._Hashed, "write", stopped)
    with pytest.raises(kind):
        list(fit(run, volumes, checkpoint_seconds=-1))
    assert run.checkpoint.read_bytes() == before and len(list(run.checkpoint.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"seen": 1.5},
        {"model": []},
        {"optimizers": {"net": {}}},
        {"optimizers": {}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_checkpoint_with_strange_contents_is_refused(tmp_path, volumes, change):
    run = new_run(tmp_path / "run")
    list(itertools.islice(fit(run, volumes, checkpoint_seconds=-1), 2))
    state = torch.load(run.checkpoint, weights_only=True)
    for content in ({**state, **change}, list(state)):
        torch.save(content, run.checkpoint)
        with pytest.raises(MribenchError, match="must be a whole checkpoint, but: "):
            list(fit(run, volumes))


def test_weights_that_cannot_be_proven_are_written_again_from_the_checkpoint_or_refused(tmp_path, volumes):
    run = new_run(tmp_path / "run")
    list(fit(run, volumes))
    content = run.weights.read_bytes()
    run.weights.write_bytes(content[:-1] + b"x")
    assert not run.is_trained()
    list(fit(run, volumes))
    assert run.is_trained() and run.weights.read_bytes() == content
    run.weights_record.write_text("{")
    run.checkpoint.unlink()
    with pytest.raises(MribenchError, match="no checkpoint to write it from"):
        training._check_checkpoint_of_weights(run)


def test_divergence_stops_the_run_and_keeps_the_checkpoint(tmp_path, volumes):
    run = new_run(tmp_path / "run", learning_rate=1e30)
    with pytest.raises(MribenchError, match=r"by step \d+ those of net did not \(loss = "):
        list(fit(run, volumes, checkpoint_seconds=-1))
    state = torch.load(run.checkpoint, weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["optimizers"]["net"]["state"][0].values())
    assert not run.weights.exists()


def test_divergence_names_the_update_that_went_wrong(tmp_path, volumes):
    run = new_gan_run(tmp_path / "run", critic_learning_rate=1e30, critic_steps=1)
    with pytest.raises(MribenchError, match=r"by step 1 those of G did not \(distance = .*kept"):
        list(fit(run, volumes, checkpoint_seconds=-1))
    assert not run.weights.exists()


def test_weights_carry_the_statistics_over_prior_samples(tmp_path, volumes):
    """The checkpoint keeps those of training, so that a resumed run goes on as if never stopped."""
    run = new_gan_run(tmp_path / "run", critic_steps=1)
    list(fit(run, volumes))
    trained = torch.load(run.checkpoint, weights_only=True)["model"]
    weights = safetensors.torch.load_file(run.weights)
    generator = load_generator(run)
    generator.load_state_dict(trained)
    generator.refresh_batchnorm(3)
    for key, value in generator.G.state_dict().items():
        assert torch.equal(weights[f"G.{key}"], value)
    assert not torch.equal(weights["G.stages.0.running_mean"], trained["G.stages.0.running_mean"])


class TwoUpdates(Generator):
    """Adds 1 to its one weight twice a step and notes what the network says each time."""

    Config = GeneratorConfig
    needs = ("net",)

    def __init__(self, config):
        super().__init__(config)
        self.net = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.net.weight)
        self.optimizers = {"net": torch.optim.SGD(self.net.parameters(), lr=1.0)}
        self.said = []

    def training_step(self, next_batch):
        one = next_batch().new_ones(1, 1)
        for _ in range(2):
            output = self.net(one)
            self.said.append(output.item())
            self.descend(-output.sum(), "net")
        return {"loss": -output.detach().sum()}


def test_a_second_update_of_a_bf16_step_sees_the_weights_of_the_first(tmp_path, volumes, monkeypatch):
    model = TwoUpdates(GeneratorConfig(size=16, batch_size=1, budget=1))
    run = write_run(tmp_path / "run", "two", model.config)
    monkeypatch.setattr(Context, "bf16", True)
    list(training_steps(model, volumes, run, Context(CPU)))
    assert model.said == [0.0, 1.0]
