"""A training that starts from weights: what is copied, what is refused, what is recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from mribench.cli import main
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_file
from mribench.models import get_model
from mribench.models.start import (
    PretrainedRecord,
    Pretraining,
    check_start,
    find_start,
    read_pretrained,
    start_from,
)

PROTOCOL = """
name = "start"
version = 1
seed = 5
[cohort]
source = "simulated"
size = 16
train = 4
reference = 3
holdout = 3
[evaluation]
samples = 3
tsne_samples = 3
metrics = ["mmd"]
[training]
preset = "tiny"
budget = 4
[training.gan_gp]
size = 16
channels = [4, 8]
latent = 12
[training.cdpm]
size = 16
base = 8
multipliers = [1, 2]
tau_max = 6
stage_slices = 3
calls = 2
mixing_sizes = [16]
"""


def build(name, **overrides):
    kind = get_model(name)
    return kind(kind.build_config("tiny", **{**kind.SMALLEST, **overrides}))


@pytest.mark.parametrize("name", ["cdpm", "dpm3d", "gan_gp", "alpha_wgan", "ha_gan"])
def test_weights_of_a_run_start_a_training(name, tmp_path, jitter):
    torch.manual_seed(1)
    trained, fresh = jitter(build(name)), build(name)
    path = tmp_path / "weights.safetensors"
    trained.save(path)
    networks = check_start(type(fresh), fresh.config, path)
    start_from(fresh, path)
    assert networks == tuple(dict.fromkeys(need.split(".")[0] for need in fresh.needs))
    for need in fresh.needs:
        expected = trained.get_submodule(need).state_dict()
        for key, value in fresh.get_submodule(need).state_dict().items():
            assert torch.equal(value, expected[key])
    if name in ("cdpm", "dpm3d"):
        assert all(map(torch.equal, fresh.net.parameters(), fresh.ema.parameters()))


def test_a_file_of_all_networks_in_bfloat16_starts_all_of_them(tmp_path, jitter):
    trained, fresh = jitter(build("alpha_wgan")), build("alpha_wgan")
    path = tmp_path / "all.safetensors"
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    safetensors.torch.save_file(state, path)
    assert check_start(type(fresh), fresh.config, path) == ("G", "E", "D", "C")
    start_from(fresh, path)
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key].bfloat16().to(value.dtype))


def test_files_that_do_not_fit_are_refused(tmp_path):
    model, path = build("gan_gp"), tmp_path / "weights.safetensors"
    wider = type(model).build_config("tiny", **{**model.SMALLEST, "latent": 13})
    model.save(path)
    with pytest.raises(MribenchError, match=r"G\.stem\.0\.weight is \[.*, 12\] in it and \[.*, 13\] here"):
        check_start(type(model), wider, path)
    with pytest.raises(MribenchError, match="which this model does not have"):
        check_start(get_model("cdpm"), build("cdpm").config, path)
    state = safetensors.torch.load_file(path)
    state.pop("G.stem.0.weight")
    safetensors.torch.save_file(state, path)
    with pytest.raises(MribenchError, match=r"it lacks G\.stem\.0\.weight"):
        check_start(type(model), model.config, path)
    path.write_bytes(b"no weights")
    with pytest.raises(MribenchError, match="must hold weights of 3D-GAN-GP"):
        check_start(type(model), model.config, path)


def test_shipped_weights_are_found_and_checked(tmp_path):
    assert find_start("gan_gp", "scratch", tmp_path) is None
    with pytest.raises(UsageError, match="only of: none"):
        find_start("gan_gp", "pretrained", tmp_path)
    with pytest.raises(UsageError, match="not 'nowhere'"):
        find_start("gan_gp", "nowhere", tmp_path)
    path = tmp_path / "gan_gp.safetensors"
    path.write_bytes(b"weights")
    facts = {"config": {}, "seen": 1, "seconds": 1, "protocol": "p", "cohort_seed": 1, "cohort_digest": "c"}
    made = Pretraining(digest=digest_file(path), **facts)
    PretrainedRecord(models={"gan_gp": made}).write(tmp_path / "pretrained.json")
    assert find_start("gan_gp", "pretrained", tmp_path) == path
    path.write_bytes(b"other")
    with pytest.raises(MribenchError, match="Install mribench again"):
        find_start("gan_gp", "pretrained", tmp_path)


@pytest.mark.parametrize("name", sorted(read_pretrained().models))
def test_shipped_weights_fit_the_tiny_preset(name):
    kind = get_model(name)
    path = find_start(name, "pretrained")
    networks = check_start(kind, kind.build_config("tiny"), path)
    learned = set(kind(kind.build_config("tiny")).parameter_count())
    assert set(networks) == ({"ema"} if learned == {"net"} else learned)
    assert all(torch.isfinite(v).all() for v in safetensors.torch.load_file(path).values())


def test_shipped_weights_are_few_bytes():
    sizes = [find_start(name, "pretrained").stat().st_size for name in read_pretrained().models]
    assert sum(sizes) < 25e6


def call(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("model", ["gan_gp", "cdpm"])
def test_a_start_is_recorded_and_decides_the_run(model, tmp_path):
    protocol = tmp_path / "start.toml"
    protocol.write_text(PROTOCOL)
    first, second = tmp_path / "first", tmp_path / "second"
    for bench in (first, second):
        call("init", "--protocol", protocol, "--bench", bench)
    call("train", model, "--bench", first)
    weights = first / "runs" / model / "weights.safetensors"
    call("train", model, "--bench", second, "--from", weights)
    record = json.loads((second / "runs" / model / "run.json").read_text())
    network = "ema" if model == "cdpm" else "G"
    assert record["start"] == {
        "name": "weights.safetensors",
        "digest": digest_file(weights),
        "networks": [network],
    }
    again = call("train", model, "--bench", second, code=2)
    assert "exists with other settings" in again.output and "start" in again.output
    assert "up to date" in call("train", model, "--bench", second, "--from", weights).output
    ours = safetensors.torch.load_file(second / "runs" / model / "weights.safetensors")
    theirs = safetensors.torch.load_file(weights)
    scale = {k: float(v.float().abs().mean()) for k, v in theirs.items()}
    moved = [
        float((ours[k] - theirs[k]).float().abs().mean()) / (scale[k] + 1e-9)
        for k in theirs
        if scale[k] > 0.01
    ]
    assert 0 < np.median(moved) < 0.3  # went on from there: two short steps, not a fresh start
    call("train", model, "--bench", tmp_path / "third", "--protocol", protocol, "--from", "nothing", code=2)
