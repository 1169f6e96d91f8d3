"""What a program holds becomes one set, with the axes that it says, whatever package it is of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader as MonaiLoader
from monai.data import Dataset as MonaiDataset
from monai.data import MetaTensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from mribench.data.loaded import loaded_set
from mribench.data.nifti import read_nifti, write_nifti
from mribench.errors import MribenchError

VOLUMES = np.random.default_rng(0).random((5, 6, 7, 8), dtype=np.float32)  # [N,D,H,W]
RAS = np.diag([2.0, 3.0, 4.0, 1.0])


def in_ras(volume):
    """[D,H,W] -> [1, left-right, front-back, up-down]."""
    return torch.from_numpy(volume.transpose(2, 1, 0).copy())[None]


def in_lps(volume):
    """The same brain with its first two axes reversed, and the affine that says so."""
    affine = np.diag([-2.0, -3.0, 4.0, 1.0])
    affine[:2, 3] = 2.0 * 7, 3.0 * 6
    return in_ras(volume).flip(1, 2), affine


class Indexed(Dataset):
    """Has a length and indices only, and never raises IndexError."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return len(VOLUMES)

    def __getitem__(self, index):
        return self.make(VOLUMES[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.from_numpy(VOLUMES))


class Image:
    """As torchio.ScalarImage: [C,W,H,D] and an affine."""

    type = "intensity"

    def __init__(self, data, affine):
        self.data, self.affine = data, affine


class LabelMap(Image):
    type = "label"


def subject(volume):
    data, affine = in_lps(volume)
    return {"t1": Image(data, affine), "seg": LabelMap(data > 0.5, affine), "age": 71}


def collated(volumes):
    """As a loader of TorchIO subjects gives them."""
    pairs = [in_lps(volume) for volume in volumes]
    data, affines = torch.stack([data for data, _ in pairs]), torch.tensor(np.stack([a for _, a in pairs]))
    image = {"data": data, "affine": affines, "type": ["intensity"] * len(pairs)}
    return {"t1": image, "seg": {**image, "type": ["label"] * len(pairs)}, "age": torch.arange(len(pairs))}


def monai_items():
    return [{"image": MetaTensor(in_ras(v), affine=torch.tensor(RAS)), "label": in_ras(v)} for v in VOLUMES]


FORMS = {
    "array": lambda: VOLUMES,
    "array with a channel": lambda: VOLUMES[:, None],
    "float64": lambda: VOLUMES.astype(np.float64),
    "tensor": lambda: torch.from_numpy(VOLUMES),
    "tensor with a channel and a graph": lambda: torch.from_numpy(VOLUMES[:, None]).requires_grad_(),
    "list": lambda: list(VOLUMES),
    "generator": lambda: (torch.from_numpy(v)[None] for v in VOLUMES),
    "TensorDataset": lambda: TensorDataset(torch.from_numpy(VOLUMES)[:, None], torch.arange(5)),
    "Dataset": lambda: Indexed(torch.from_numpy),
    "IterableDataset": Stream,
    "DataLoader": lambda: DataLoader(TensorDataset(torch.from_numpy(VOLUMES)[:, None]), batch_size=2),
    "DataLoader without a channel": lambda: DataLoader(
        TensorDataset(torch.from_numpy(VOLUMES)), batch_size=2
    ),
    "DataLoader of single items": lambda: DataLoader(Stream(), batch_size=None),
    "dictionaries": lambda: Indexed(lambda v: {"image": torch.from_numpy(v)[None], "name": "x", "age": 3}),
    "MONAI": lambda: MonaiDataset(monai_items()),
    "MONAI loader": lambda: MonaiLoader(MonaiDataset(monai_items()), batch_size=2),
    "subjects": lambda: Indexed(subject),
    "batches of subjects": lambda: [collated(VOLUMES[:3]), collated(VOLUMES[3:])],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_volumes_and_digests(form):
    volumes = loaded_set(FORMS[form](), "samples")
    assert volumes.shape == (6, 7, 8) and len(volumes) == 5
    assert np.array_equal(volumes.stack(), VOLUMES)
    assert volumes.digests == loaded_set(VOLUMES, "samples").digests
    assert (
        np.array_equal(volumes[4], VOLUMES[4]) and volumes.subset([3, 1])[0][0, 0, 0] == VOLUMES[3][0, 0, 0]
    )


def test_affines_agree_with_those_of_files(tmp_path):
    write_nifti(tmp_path / "a.nii", VOLUMES[0], RAS)
    for form in ("MONAI", "subjects"):
        affine = loaded_set(FORMS[form](), "samples").affine
        assert np.allclose(affine, RAS) and np.allclose(affine, read_nifti(tmp_path / "a.nii").affine)


def test_rescale_maps_intensities_of_every_form():
    for source in (VOLUMES * 2 - 1, torch.from_numpy(VOLUMES) * 2 - 1, list(VOLUMES * 2 - 1)):
        assert np.allclose(loaded_set(source, "samples", (-1, 1)).stack(), VOLUMES, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (VOLUMES * 2, r"volume 0 of samples must have values in \[0,1\]"),
        ([*VOLUMES[:2], VOLUMES[2] - 1], r"volume 2 of samples must have values in \[0,1\]"),
        (np.full((2, 3, 3, 3), np.nan), "volume 0 of samples"),
        ([VOLUMES[0], VOLUMES[1][:3]], r"volume 1 is \[3, 7, 8\] and the first is \[6, 7, 8\]"),
        ([VOLUMES[:2]], "more than one channel"),
        (torch.zeros(4, 2, 6, 7, 8), r"\[N,1,D,H,W\]"),
        ([], "is empty"),
        (iter(()), "is empty"),
        (3, "must be a folder, an array or tensor .* but is a int"),
        (["a.nii"], "one item is a str"),
        ([{"t1": VOLUMES[0], "t2": VOLUMES[0]}], "the images of one are: t1, t2"),
        ([{"age": 3}], "the images of one are: none"),
        (
            [Image(in_ras(VOLUMES[0]), RAS), Image(in_ras(VOLUMES[0]), RAS * 1.1)],
            "share one grid in world mm",
        ),
        ([Image(in_ras(VOLUMES[0]), np.zeros((4, 4)))], "must name three axes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_scored_is_refused_with_a_sentence(source, message):
    with pytest.raises(MribenchError, match=message):
        loaded_set(source, "samples")
