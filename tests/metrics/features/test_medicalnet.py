"""MedicalNet's ResNet-50 against MONAI's and against the formula; its weights' file; FID-3D."""

import copy
import hashlib
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from mribench.bench.folder import create_bench
from mribench.bench.protocol import load_protocol
from mribench.cli import main
from mribench.errors import MribenchError
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.features import medicalnet
from mribench.metrics.features.inception import InceptionV3
from mribench.metrics.features.slices import EXTRACTORS
from mribench.metrics.fid import frechet_distance
from mribench.metrics.scoring import score_all
from mribench.runtime import Context


def seeded(net, seed=11):
    """Weights that keep signals alive, and norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if tensor.ndim == 5:
            tensor.copy_((2 / tensor[0].numel()) ** 0.5 * torch.randn(tensor.shape, generator=generator))
        elif tensor.ndim == 1:
            low = 0.6 if name.endswith((".weight", "running_var")) else -0.2
            tensor.copy_(low + 0.4 * torch.rand(tensor.shape, generator=generator))
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def net():
    return seeded(medicalnet.ResNet50())


@pytest.fixture(scope="module")
def weights_file(net, tmp_path_factory):
    """As published: an outer dictionary, names of a DataParallel module, the head of a segmentation task."""
    path = tmp_path_factory.mktemp("weights") / "resnet_50.pth"
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": {**state, "module.conv_seg.0.weight": torch.ones(2)}}, path)
    return path


def functional(state, x):
    """The published architecture as formulas over the checkpoint's names, float64."""

    def normed(x, name):
        mean, var, weight, bias = (
            state[f"{name}.{part}"].double().view(1, -1, 1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def convolved(x, name, **how):
        return F.conv3d(x, state[f"{name}.weight"].double(), **how)

    x = F.max_pool3d(normed(convolved(x, "conv1", stride=2, padding=3), "bn1").relu(), 3, 2, 1)
    layers = (("layer1", 3, 1, 1), ("layer2", 4, 2, 1), ("layer3", 6, 1, 2), ("layer4", 3, 1, 4))
    for layer, arrays, stride, dilation in layers:
        for i in range(arrays):
            name, step = f"{layer}.{i}", stride if i == 0 else 1
            y = normed(convolved(x, f"{name}.conv1"), f"{name}.bn1").relu()
            y = convolved(y, f"{name}.conv2", stride=step, padding=dilation, dilation=dilation)
            y = normed(convolved(normed(y, f"{name}.bn2").relu(), f"{name}.conv3"), f"{name}.bn3")
            if i == 0:
                x = normed(convolved(x, f"{name}.downsample.0", stride=step), f"{name}.downsample.1")
            x = (x + y).relu()
    return x.mean(dim=(2, 3, 4))


def assert_close(ours, theirs):
    assert (theirs[0] - theirs[1]).abs().max() > 1e-2 * theirs.abs().max()
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.fixture(scope="module")
def volumes():
    noise = torch.randn(2, 1, 20, 28, 24, generator=torch.Generator().manual_seed(2))
    return F.avg_pool3d(noise, 3, 1, 1) + torch.tensor([0.0, 0.5]).view(2, 1, 1, 1, 1)


def test_the_network_is_the_published_formula(net, volumes):
    with torch.inference_mode():
        assert_close(net(volumes).double(), functional(net.state_dict(), volumes.double()))


def test_with_strides_for_dilations_it_is_monais_resnet(net, volumes):
    """MONAI's has no dilation, so ours is given its strides; names and number of parameters are equal."""
    nets = pytest.importorskip("monai.networks.nets")
    peer = nets.resnet50(
        spatial_dims=3, n_input_channels=1, feed_forward=False, bias_downsample=False, conv1_t_stride=2
    )
    peer.load_state_dict(net.state_dict())
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in peer.parameters()) == 46_155_072
    ours = copy.deepcopy(net)
    for layer in (ours.layer3, ours.layer4):
        layer[0].conv2.stride = layer[0].downsample[0].stride = (2, 2, 2)
        for block in layer:
            block.conv2.dilation = block.conv2.padding = (1, 1, 1)
    with torch.inference_mode():
        assert_close(ours(volumes), peer.eval()(volumes))


def test_a_published_file_gives_the_same_network(net, weights_file, volumes):
    with torch.inference_mode():
        assert torch.equal(medicalnet.load_network(weights_file)(volumes), net(volumes))


def test_a_file_without_wrapping_gives_the_same_network(net, tmp_path, volumes):
    torch.save(net.state_dict(), tmp_path / "bare.pth", _use_new_zipfile_serialization=False)
    with torch.inference_mode():
        assert torch.equal(medicalnet.load_network(tmp_path / "bare.pth")(volumes), net(volumes))


def refusal(path):
    with pytest.raises(MribenchError) as error:
        medicalnet.load_network(path)
    message = str(error.value)
    for part in ("medicalnet-resnet50 needs", "resnet_50_23dataset.pth", str(path), "--weights-3d PATH"):
        assert part in message
    return message


def test_a_torn_file_is_a_clear_message(tmp_path):
    path = tmp_path / "torn.pth"
    for zipped in (True, False):
        torch.save(
            {f"conv{i}.weight": torch.rand(100) for i in range(50)},
            path,
            _use_new_zipfile_serialization=zipped,
        )
        whole = path.read_bytes()
        for length in (0, 1, 100, 1000, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert "it may be torn" in refusal(path)


def names_and_shapes(net):
    """A state dictionary whose file is small."""
    return {name: torch.zeros(()).expand(value.shape) for name, value in net.state_dict().items()}


def test_another_networks_file_is_a_clear_message(net, tmp_path):
    path = tmp_path / "other.pth"
    ours = names_and_shapes(net)
    torch.save(names_and_shapes(InceptionV3("2015")), path)
    assert "has other names or shapes" in refusal(path) and "Conv2d_1a_3x3" in refusal(path)
    deeper = {**ours, "layer3.6.conv1.weight": torch.ones(1)}  # as of MedicalNet's ResNet-101
    torch.save({"state_dict": deeper}, path)
    assert "the first of 1 being layer3.6.conv1.weight" in refusal(path)
    short = {name: value for name, value in ours.items() if name != "layer4.2.bn3.bias"}
    torch.save(short, path)
    assert "layer4.2.bn3.bias" in refusal(path)
    torch.save({**ours, "conv1.weight": torch.ones(64, 3, 7, 7, 7)}, path)
    assert "conv1.weight" in refusal(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.ones(3), {"state_dict": 3}, "text"])
def test_a_file_of_something_else_is_a_clear_message(content, tmp_path):
    torch.save(content, tmp_path / "else.pth")
    assert "holds no dictionary of tensors" in refusal(tmp_path / "else.pth")


class Harm:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran code of the file')",))


def test_a_file_runs_no_code(tmp_path):
    (tmp_path / "harm.pth").write_bytes(pickle.dumps(Harm(), protocol=2))
    assert "cannot be read as weights" in refusal(tmp_path / "harm.pth")


def test_input_has_mean_0_and_deviation_1_over_all_voxels():
    volume = np.random.default_rng(0).random((6, 7, 8), dtype=np.float32) ** 3
    expected = (volume.astype(float) - volume.mean(dtype=float)) / volume.std(dtype=float)
    found = medicalnet.network_input(volume)
    assert found.shape == (1, 1, 6, 7, 8) and found.dtype == torch.float32
    assert found[0, 0].numpy() == pytest.approx(expected, abs=1e-5)
    assert not medicalnet.network_input(np.full((3, 3, 3), 0.3, np.float32)).any()


@pytest.fixture(scope="module")
def sets(formula_volume, volume_set):
    spans = {"samples": range(1, 4), "reference": range(11, 14)}
    return {name: volume_set(name, [formula_volume(i, 16) for i in span]) for name, span in spans.items()}


def test_fid_3d_is_the_frechet_distance_of_these_features(sets, net, weights_file):
    (score,), missing = score_all(Arrays(sets, None, context=Context(weights_3d=weights_file)), ("fid_3d",))
    features = {}
    for name in ("reference", "samples"):
        pixels = torch.cat([medicalnet.network_input(v) for v in sets[name].stack()])
        features[name] = functional(net.state_dict(), pixels.double()).numpy()
    assert missing == []
    assert score.value == pytest.approx(
        frechet_distance(features["reference"], features["samples"]), rel=1e-4
    )
    assert (score.title, score.family, score.ranked) == ("FID-3D", "fid", False)
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert f"|weights:{digest}|" in score.signature and "|input:zscore-volume|" in score.signature


def test_fid_3d_of_a_slab_says_so(sets, volume_set, weights_file):
    slab = volume_set("samples", [v[4:12] for v in sets["samples"].stack()], slab=(4, 12))
    (score,), _ = score_all(
        Arrays({**sets, "samples": slab}, None, context=Context(weights_3d=weights_file)), ("fid_3d",)
    )
    assert "|volume:4-12|" in score.signature
    assert "real volumes cropped alike" in score.notes[0]


def test_without_weights_fid_3d_is_missing_with_its_reason(sets):
    scores, (missing,) = score_all(Arrays(sets, None), ("fid_3d",))
    assert scores == [] and not missing.by_design
    assert "Nothing is downloaded: give the file with --weights-3d PATH." in missing.reason


def test_weights_of_the_2d_extractor_are_no_weights_for_3d(sets, weights_file):
    assert "fid_3d" not in EXTRACTORS
    _, missing = score_all(Arrays(sets, None, context=Context(weights=weights_file)), ("fid_3d",))
    assert "--weights-3d" in missing[0].reason


def test_a_protocol_without_fid_3d_refuses_its_weights(tmp_path, protocol_file, weights_file):
    bench = create_bench(tmp_path / "bench", load_protocol(str(protocol_file)))
    args = ["evaluate", "--all", "--bench", str(bench.folder), "--weights-3d", str(weights_file)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    assert "protocol test does not measure" in result.stderr
