"""From volumes to features: slices, resizing, networks and their weights."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images

from mribench.errors import MribenchError, UsageError
from mribench.metrics.features import inception
from mribench.metrics.features import slices as features
from mribench.metrics.features.effnet import EfficientNetLite0, SameConv2d
from mribench.metrics.features.slices import (
    EXTRACTORS,
    find_weights,
    for_grey,
    get_extractor,
    grey_slice,
    load_network,
    network_input,
    resize_matrix,
    slices_within,
    spread_indices,
)

EFFNET, INCEPTION = EXTRACTORS["effnet-lite0"], EXTRACTORS["inception-2015"]


@pytest.fixture(scope="module")
def grey(formula_volume, expected):
    """The published uint8 slice [128,128]."""
    plane = np.round(formula_volume(1)[:, :, 64].astype(np.float64) * 255).astype(np.uint8)
    assert int(plane.sum()) == expected["input/slice(volume(1)[:,:,64]*255 rounded)"]["sum"]
    return plane


def test_each_view_cuts_its_axis_at_the_middle():
    volume = np.zeros((6, 8, 10), dtype=np.float32)
    volume[3], volume[:, 4], volume[:, :, 5] = 0.2, 0.4, 0.6
    for view, value, ones in (("axial", 0.2, 8 * 10), ("coronal", 0.4, 6 * 10), ("sagittal", 0.6, 6 * 8)):
        _, centre, _ = slices_within(view, volume.shape, None, 6)
        plane = grey_slice(volume, view, centre)
        assert np.count_nonzero(plane) == ones
        assert np.median(plane[plane > 0]) == round(255 * value)


def test_planes_are_padded_to_a_square_with_zeros():
    plane = grey_slice(np.ones((3, 6, 5), dtype=np.float32), "coronal", 2)
    assert plane.shape == (5, 5)
    assert np.array_equal(plane.sum(1) / 255, [0, 5, 5, 5, 0])


@pytest.mark.parametrize(
    ("side", "smallest", "indices"),
    [
        (32, 32, (5, 16, 27)),
        (36, 36, (6, 18, 30)),
        (64, 64, (11, 21, 32, 43, 53)),
        (128, 128, (21, 43, 64, 85, 107)),
        (160, 128, (27, 53, 80, 107, 133)),
        (64, 32, (11, 32, 53)),
    ],
)
def test_positions_are_at_fixed_parts_of_the_side_and_more_in_larger_volumes(side, smallest, indices):
    assert spread_indices(side, smallest) == indices


@pytest.mark.parametrize("side", range(3, 200))
def test_positions_lie_inside_and_alike_on_both_sides_of_the_centre(side):
    indices = spread_indices(side, side)
    assert indices[0] >= 0 and indices[-1] < side
    assert [i - side // 2 for i in indices] == [side // 2 - i for i in reversed(indices)]


@pytest.mark.parametrize(
    ("slab", "indices"),
    [
        (None, (3, 8, 13)),
        ((4, 12), (4,)),
        ((8, 14), (0, 5)),
        ((3, 14), (0, 5, 10)),
        ((9, 13), (2,)),  # holds none of them: its own central slice
    ],
)
def test_a_slab_gives_the_positions_of_the_whole_volume_that_it_holds(slab, indices):
    depth = 16 if slab is None else slab[1] - slab[0]
    assert slices_within("axial", (depth, 9, 9), slab, 16) == indices
    assert slices_within("coronal", (depth, 9, 9), slab, 16) == (1, 4, 7)


def test_tensorflow_grid_equals_the_published_resize(grey, expected):
    matrix = resize_matrix(128, 299, half_pixel=False)
    image = (matrix @ torch.from_numpy(grey).double() @ matrix.T).numpy()
    known = expected["resize299/TF1-style bilinear, no half-pixel offset (formula)"]
    assert image.mean() == pytest.approx(known["mean"], rel=1e-9)
    for key, place in (("p60_150", (60, 150)), ("p150_150", (150, 150)), ("p200_97", (200, 97))):
        assert image[place] == pytest.approx(known[key], rel=1e-9)


@pytest.mark.parametrize(("source", "target"), [(32, 224), (128, 224), (300, 224), (128, 299)])
def test_half_pixel_grid_equals_torch(source, target):
    image = torch.rand(source, source, dtype=torch.float64)
    matrix = resize_matrix(source, target, half_pixel=True)
    theirs = F.interpolate(image[None, None], (target, target), mode="bilinear", align_corners=False)[0, 0]
    assert torch.allclose(matrix @ image @ matrix.T, theirs, atol=1e-12)


def test_effnet_knows_two_photographs():
    """ImageNet classes 698 "palace" and 985 "daisy": architecture, padding and weights fit together."""
    net = EfficientNetLite0().eval()
    net.load_state_dict(torch.load(find_weights(EFFNET, None), weights_only=True))
    classes = []
    for photograph in load_sample_images().images:
        top, left = (photograph.shape[0] - 424) // 2, (photograph.shape[1] - 424) // 2
        square = torch.from_numpy(photograph[top : top + 424, left : left + 424].copy()).permute(2, 0, 1)[
            None
        ]
        small = F.interpolate(square.float(), (224, 224), mode="bilinear", antialias=True)
        with torch.inference_mode():
            classes.append(int(net.classify((small - 127) / 128).argmax()))
    assert classes == [698, 985]


@pytest.mark.parametrize(("side", "stride", "pads"), [(8, 2, (0, 1)), (7, 2, (1, 1)), (8, 1, (1, 1))])
def test_same_padding_is_tensorflows(side, stride, pads):
    """An even side at stride 2 is padded at its end only."""
    layer = SameConv2d(1, 1, 3, stride, bias=False)
    image = torch.rand(1, 1, side, side)
    by_hand = F.conv2d(F.pad(image, (*pads, *pads)), layer.weight, stride=stride)
    assert torch.allclose(layer(image), by_hand, atol=1e-6)


def test_pixels_are_scaled_as_the_network_expects():
    pixels = network_input(np.full((2, 8, 8), 255, np.uint8), EFFNET)
    assert pixels.shape == (2, 1, 224, 224)
    assert torch.allclose(pixels, torch.tensor((255 - 127) / 128))


def test_missing_weights_are_named_with_digest_and_option(tmp_path):
    extractor = get_extractor("inception-2015")
    for path in (None, tmp_path / "absent.pth"):
        with pytest.raises(MribenchError) as error:
            find_weights(extractor, path)
        for part in ("inception-2015", extractor.file, extractor.sha256, "--weights PATH"):
            assert part in str(error.value)


def test_other_weights_are_refused_before_they_are_opened(tmp_path):
    path = tmp_path / EFFNET.file
    path.write_bytes(b"something else")
    with pytest.raises(MribenchError, match="has sha256"):
        load_network(EFFNET, path)


def test_absent_package_is_a_clear_message(monkeypatch):
    monkeypatch.setattr(features, "_packaged_weights", lambda extractor: None)
    with pytest.raises(MribenchError, match="Nothing is downloaded"):
        load_network(EFFNET, None)


def test_unknown_extractor_has_a_guess():
    with pytest.raises(UsageError, match="Did you mean 'inception-2015'"):
        get_extractor("inception2015")


def formula_state(net):
    """Deterministic weights: the i-th of the sorted names is drawn from default_rng(1000 + i)."""
    state = {}
    names = sorted(name for name in net.state_dict() if not name.endswith("num_batches_tracked"))
    for i, name in enumerate(names):
        shape = tuple(net.state_dict()[name].shape)
        if name.endswith("conv.weight"):
            weight = (2 * np.random.default_rng(1000 + i).random(shape) - 1) * math.sqrt(
                6 / np.prod(shape[1:])
            )
        else:
            weight = np.full(shape, 1.0 if name.endswith(("bn.weight", "running_var")) else 0.0)
        state[name] = torch.from_numpy(weight.astype(np.float32))
    return state


@pytest.fixture(scope="module")
def inception_state():
    return formula_state(inception.InceptionV3("2015"))


@pytest.mark.parametrize(
    ("graph", "key"),
    [
        ("2015", "inception/torch-fidelity graph, formula weights, pool3 2048"),
        ("torchvision", "inception/torchvision graph, same weights, same TF1 resize, pool3 2048"),
    ],
)
def test_both_inception_graphs_equal_the_published_probe(inception_state, grey, expected, graph, key):
    surplus = {"fc.weight": torch.zeros(1008, 2048), "AuxLogits.fc.bias": torch.zeros(1000)}
    net = inception.build(graph, {**inception_state, **surplus}).double()
    matrix = resize_matrix(128, 299, half_pixel=False)
    image = (matrix @ torch.from_numpy(grey).double() @ matrix.T - 128) / 128
    with torch.inference_mode():
        found = net(image.expand(1, 3, -1, -1))[0].numpy()
    known = expected[key]
    assert found.sum() == pytest.approx(known["sum"], rel=1e-5)
    assert np.linalg.norm(found) == pytest.approx(known["l2"], rel=1e-5)
    assert found[[0, 1000, 2047]] == pytest.approx([known["f0"], known["f1000"], known["f2047"]], rel=1e-5)


def test_incomplete_inception_weights_are_refused(inception_state):
    short = {name: value for name, value in inception_state.items() if "Mixed_7c" not in name}
    with pytest.raises(RuntimeError, match="Mixed_7c"):
        inception.build("2015", short)


def seeded(net, seed):
    """Weights of a size that keeps signals alive, and norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if tensor.ndim == 4:
            scale = math.sqrt(2 / tensor[0].numel())
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
        elif tensor.ndim == 1:
            low = 0.6 if name.endswith((".weight", "running_var")) else -0.2
            tensor.copy_(low + 0.4 * torch.rand(tensor.shape, generator=generator))
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def planes(formula_volume):
    return np.stack([grey_slice(formula_volume(seed, 64), "axial", 32) for seed in (1, 2)])


def assert_close(ours, theirs, share):
    """Within `share` of the largest feature; and the two images must differ by much more."""
    assert (theirs[0] - theirs[1]).abs().max() > 100 * share * theirs.abs().max()
    assert (ours - theirs).abs().max() <= share * theirs.abs().max()


@pytest.mark.parametrize(
    ("make", "name"),
    [(EfficientNetLite0, "effnet-lite0"), (lambda: inception.InceptionV3("2015"), "inception-2015")],
)
def test_a_network_for_grey_slices_equals_the_one_for_three_equal_channels(make, name, planes):
    plain = seeded(make(), 4)
    grey = for_grey(copy.deepcopy(plain))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in grey.modules())
    pixels = network_input(planes, EXTRACTORS[name])
    with torch.inference_mode():
        assert_close(grey(pixels), plain(pixels.expand(-1, 3, -1, -1)), 2e-5)


def test_resizing_equals_torch_fidelitys(planes):
    theirs = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    resized = theirs.interpolate_bilinear_2d_like_tensorflow1x(
        torch.from_numpy(planes)[:, None].float(), size=(299, 299), align_corners=False
    )
    assert (
        network_input(planes, INCEPTION) - (resized - 128) / 128
    ).abs().max() < 1e-5  # their grid is float32


def test_features_equal_torch_fidelitys(planes, tmp_path):
    """Resize and network together, with the same seeded weights."""
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    plain = seeded(inception.InceptionV3("2015"), 5)
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save({**plain.state_dict(), **classifier}, tmp_path / "weights.pth")
    peer = theirs.FeatureExtractorInceptionV3("peer", ["2048"], str(tmp_path / "weights.pth"))
    with torch.inference_mode():
        (expected,) = peer(torch.from_numpy(planes)[:, None].expand(-1, 3, -1, -1))
        assert_close(for_grey(plain)(network_input(planes, INCEPTION)), expected, 1e-5)


def test_the_torchvision_graph_equals_torchvisions(planes):
    models = pytest.importorskip("torchvision.models")
    plain = seeded(inception.InceptionV3("torchvision"), 6)
    peer = models.inception_v3(weights=None, aux_logits=False, init_weights=False, transform_input=False)
    peer.fc = torch.nn.Identity()
    peer.load_state_dict(plain.state_dict())
    pixels = network_input(planes, EXTRACTORS["inception-torchvision"])
    with torch.inference_mode():
        expected = peer.eval()(pixels.expand(-1, 3, -1, -1))
        assert_close(for_grey(plain)(pixels), expected, 1e-5)
