"""One joint t-SNE of all sets: separate fits would not share a plane. A picture, not a score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mribench.errors import MribenchError

_PERPLEXITY = 30.0
_COMPONENTS = 50  # principal components kept before the fit (van der Maaten and Hinton 2008, section 4.2)


def joint_embedding(
    features: Mapping[str, np.ndarray], *, perplexity: float = _PERPLEXITY, seed: int = 0
) -> dict[str, np.ndarray]:
    """Coordinates `[N,2]` of every named set `[N,F]`, from one fit on all of them.

    The perplexity is lowered to a third of the number of volumes when there are few. Raises MribenchError
    when the sets differ in F or hold fewer than 4 volumes together.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    widths = {name: array.shape[1] for name, array in features.items()}
    total = sum(len(array) for array in features.values())
    if len(set(widths.values())) != 1 or total < 4:
        raise MribenchError(
            f"A joint t-SNE needs at least 4 volumes with equal features, but got {total} with {widths}."
        )
    rows = np.concatenate(list(features.values()))
    reduced = PCA(min(_COMPONENTS, *rows.shape), svd_solver="full").fit_transform(rows)
    fitted = TSNE(perplexity=min(perplexity, (total - 1) / 3), init="pca", random_state=seed)
    coordinates = fitted.fit_transform(reduced)
    ends = np.cumsum([len(array) for array in features.values()])
    return dict(zip(features, np.split(coordinates, ends[:-1]), strict=True))
