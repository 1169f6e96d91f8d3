"""Volumes that a program holds: arrays, tensors, datasets and loaders of PyTorch, MONAI and TorchIO, as one set.

Nothing here imports these packages: what they hand out is recognised by its attributes.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from nibabel.orientations import OrientationError, apply_orientation, inv_ornt_aff, io_orientation

from mribench.data.nifti import Rescale, check_range
from mribench.data.volume_set import VolumeSet, volume_set
from mribench.errors import MribenchError

AFFINE_TOLERANCE = 1e-3
_FORMS = (
    "an array or tensor [N,D,H,W] or [N,1,D,H,W], or a Dataset, DataLoader, list or generator of volumes [D,H,W] or "
    "[1,D,H,W] (or of dictionaries or subjects with one image each)"
)
_IMAGE = "image"  # the entry of a dictionary that is taken when there are several


class _Volume(NamedTuple):
    """One volume `[D,H,W]`, and where its voxels lie when that is known."""

    data: np.ndarray
    affine: np.ndarray | None = None


def loaded_set(source: Any, name: str, rescale: Rescale | None = None) -> VolumeSet:
    """The volumes of an array, tensor, Dataset, DataLoader or any iterable as one set, in [0,1].

    Arrays and plain tensors have the axes [D,H,W]. Images that carry an affine (MONAI's MetaTensor, TorchIO's images)
    have the axes [left-right, front-back, up-down] or any that their affine names, and are turned accordingly. What is
    not an array is read once, in order, into a temporary file.
    Raises MribenchError for other shapes, several channels, values outside [0,1], or volumes of different grids.
    """
    if _is_array(source) and not hasattr(source, "affine"):
        return _checked(volume_set(_array(source), name), rescale)
    batched = getattr(source, "batch_size", None) is not None and hasattr(source, "collate_fn")
    items = [source] if _is_array(source) else _items(source, name)
    volumes = (volume for item in items for volume in _volumes(item, batched or source is item, name))
    return _spooled(volumes, name, rescale)


def _is_array(value: Any) -> bool:
    return hasattr(value, "ndim") and hasattr(value, "shape")


def _array(value: Any) -> np.ndarray:
    """A tensor of any device, or an array, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float().numpy()
    return np.asarray(value, dtype=np.float32)


def _checked(volumes: VolumeSet, rescale: Rescale | None) -> VolumeSet:
    def load(i: int) -> np.ndarray:
        return check_range(volumes[i], f"volume {i} of {volumes.name}", rescale)

    digests = tuple(_digest(load(i)) for i in range(len(volumes)))
    return VolumeSet(volumes.name, volumes.names, digests, volumes.shape, load)


def _digest(volume: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(volume).tobytes()).hexdigest()


def _items(source: Any, name: str) -> Iterable[Any]:
    """The items of an iterable, or of a dataset that has only a length and indices."""
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "__iter__"):
        return (source[i] for i in range(len(source)))
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        return source
    raise MribenchError(f"{name} must be a folder, {_FORMS}, but is a {type(source).__name__}.")


def _volumes(item: Any, batched: bool, name: str) -> Iterator[_Volume]:
    """The volumes of one item of a dataset, or of one batch of a loader."""
    if isinstance(item, tuple | list) and item:
        item = item[0]  # (volume, label)
    image = _image(item, name) if isinstance(item, Mapping) else item
    affine = None
    if isinstance(image, Mapping):  # a TorchIO image in a batch
        image, affine = image["data"], image["affine"]
    elif hasattr(image, "affine"):
        affine, image = image.affine, image if _is_array(image) else image.data
    if not _is_array(image):
        raise MribenchError(f"{name} must be {_FORMS}, but one item is a {type(image).__name__}.")
    stack = _stack(_array(image), batched, name)
    affines = [None] * len(stack) if affine is None else _affines(affine, len(stack))
    for data, own in zip(stack, affines, strict=True):
        yield _Volume(data) if own is None else _turned(data, own, name)


def _image(entries: Mapping[Any, Any], name: str) -> Any:
    """The one image of a dictionary (MONAI) or subject (TorchIO); label maps are none."""
    images = {key: entry for key, entry in entries.items() if _is_image(entry)}
    if _IMAGE in images:
        return images[_IMAGE]
    if len(images) != 1:
        raise MribenchError(
            f"Every item of {name} must have one image, or one called {_IMAGE!r}, but the images of one are: "
            f"{', '.join(map(str, images)) or 'none'}. Give a dataset that has only the image to score."
        )
    return next(iter(images.values()))


def _is_image(entry: Any) -> bool:
    if isinstance(entry, Mapping):
        kind, is_image = entry.get("type"), "data" in entry and "affine" in entry
    else:
        kind = getattr(entry, "type", None)
        is_image = (
            entry.ndim >= 3 if _is_array(entry) else hasattr(entry, "affine") and hasattr(entry, "data")
        )
    kind = kind[0] if isinstance(kind, list | tuple) and kind else kind
    return is_image and kind != "label"


def _stack(data: np.ndarray, batched: bool, name: str) -> np.ndarray:
    """`[B,D,H,W]` of one item or batch; raises MribenchError where the axes could be channels."""
    if data.ndim == 3:
        return data[None]
    if data.ndim == 4 and (batched or data.shape[0] == 1):
        return data
    if data.ndim == 5 and data.shape[1] == 1:
        return data[:, 0]
    raise MribenchError(
        f"{name} must be {_FORMS}; more than one channel cannot be scored. One item has the shape {list(data.shape)}."
    )


def _affines(affine: Any, count: int) -> list[np.ndarray]:
    matrices = np.asarray(affine.detach().cpu() if hasattr(affine, "detach") else affine, dtype=np.float64)
    return list(np.broadcast_to(matrices.reshape(-1, 4, 4), (count, 4, 4)))


def _turned(data: np.ndarray, affine: np.ndarray, name: str) -> _Volume:
    """Axes as the affine names them -> [D,H,W] (up, front, right ascending), without interpolation."""
    try:
        orientation = io_orientation(affine)
        turned = apply_orientation(data, orientation)
    except (OrientationError, np.linalg.LinAlgError, ValueError) as error:
        raise MribenchError(
            f"The affine of a volume of {name} must name three axes, but: {error}."
        ) from error
    return _Volume(turned.transpose(2, 1, 0), affine @ inv_ornt_aff(orientation, data.shape))


def _spooled(volumes: Iterable[_Volume], name: str, rescale: Rescale | None) -> VolumeSet:
    """Write the volumes one after another into a file without a name, which lives as long as the set that reads it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    digests: list[str] = []
    first: _Volume | None = None
    for number, volume in enumerate(volumes):
        first = first or volume
        _check_one_grid(volume, first, number, name)
        data = np.ascontiguousarray(check_range(volume.data, f"volume {number} of {name}", rescale))
        file.write(data.tobytes())
        digests.append(_digest(data))
    if first is None:
        raise MribenchError(f"{name} must be {_FORMS}, but is empty.")
    file.flush()
    shape = first.data.shape
    stored = np.memmap(file, np.float32, "r", shape=(len(digests), *shape))
    return VolumeSet(
        name=name,
        names=tuple(f"{i:06d}" for i in range(len(digests))),
        digests=tuple(digests),
        shape=(shape[0], shape[1], shape[2]),
        load=lambda i: np.array(stored[i]),
        affine=None if first.affine is None else tuple(map(tuple, first.affine.tolist())),
    )


def _check_one_grid(volume: _Volume, first: _Volume, number: int, name: str) -> None:
    if volume.data.shape != first.data.shape:
        raise MribenchError(
            f"All volumes of {name} must have one shape, but volume {number} is {list(volume.data.shape)} and "
            f"the first is {list(first.data.shape)}. Resample them to one grid first."
        )
    if volume.affine is None or first.affine is None:
        return
    apart = float(np.abs(volume.affine - first.affine).max())
    if apart > AFFINE_TOLERANCE:
        raise MribenchError(
            f"All volumes of {name} must share one grid in world mm, but the affines of volume {number} and of the "
            f"first differ by up to {apart:.4g}. Resample them to one grid, or give them without affines."
        )
