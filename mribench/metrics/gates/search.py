"""The search for copies: each volume's best match in a set, and what such a match is worth among real people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mribench.errors import NotApplicable
from mribench.files import digest_json
from mribench.metrics.arrays import alignment
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.gates import identity
from mribench.metrics.gates.identity import PARTS, SIZES, Identity
from mribench.metrics.gates.tail import gumbel_p

FEWEST = 8  # volumes of a set that is searched, and people of a null
_LEAST_WIDTH = 0.02  # of the middle half of Fisher's z, as an SD
_LEAST_VARIETY = 1e-4  # mean SD of the voxels of a set
_QUARTERS = torch.tensor([0.25, 0.5, 0.75])
_ROWS = 64  # volumes at a time

DEFINITION = f"best-match/3|{alignment.DEFINITION}|{identity.DEFINITION}|width:{_LEAST_WIDTH}"


class Matches(NamedTuple):
    """Each volume's best match in a set, in each of the 15 parts; arrays `[N,15]`."""

    statistic: np.ndarray  # agreement with the match, in robust SDs above the median of the set
    match: np.ndarray  # number of the match
    form: np.ndarray  # 0 to 3: as it lies, aligned, mirrored as it lies, mirrored and aligned

    def rows(self, chosen: Sequence[int]) -> Matches:
        """Those of some volumes."""
        return Matches(*(array[list(chosen)] for array in self))


class Verdicts(NamedTuple):
    """What the null makes of the matches; arrays `[N]`."""

    p_values: np.ndarray
    part: np.ndarray  # number of the part that stands out most


def best_matches(arrays: Arrays, people: str, target: str) -> Matches:
    """Each volume of the set `people` in the set `target`; raises NotApplicable for a target under 8 volumes."""
    rows, columns = arrays.sets[people], arrays.sets[target]
    if len(columns) < FEWEST:
        raise NotApplicable(f"a search needs at least {FEWEST} volumes, but {target} holds {len(columns)}")
    key = digest_json(["matches", rows.digest, columns.digest, arrays.frame_digest, DEFINITION])

    def compute(_: object) -> np.ndarray:
        searches = [_Search(arrays, target, form) for form in range(2)]
        per_form = [
            searches[form].best(torch.from_numpy(arrays.forms(people, mirrored)[:, form]))
            for mirrored in (False, True)
            for form in range(2)
        ]
        statistics = np.stack([statistic for statistic, _ in per_form])
        form = statistics.argmax(axis=0)
        match = np.stack([index for _, index in per_form])
        chosen = [np.take_along_axis(each, form[None], axis=0)[0] for each in (statistics, match)]
        return np.stack([*chosen, form.astype(np.float64)], axis=1)

    array = arrays.store.get(f"matches-{key[:24]}", compute, len(rows))
    return Matches(array[:, 0], array[:, 1].astype(np.intp), array[:, 2].astype(np.intp))


def identity_of(arrays: Arrays, set_name: str, form: int) -> Identity:
    """Fitted to a set as it lies (0) or aligned (1); raises NotApplicable where people cannot be told apart."""
    people = arrays.sets[set_name]
    if not arrays.frame.mask.any():
        raise NotApplicable(f"the mean volume of {arrays.framing} is too dark to show a brain")
    key = digest_json(["identity", people.digest, form, arrays.frame_digest, identity.DEFINITION])

    def compute(_: object) -> np.ndarray:
        voxels = torch.from_numpy(arrays.forms(set_name)[:, form])
        if len(voxels) < 2 or float(voxels.std(dim=0).mean()) < _LEAST_VARIETY:
            raise NotApplicable(f"{set_name} does not hold different volumes")
        return identity.fit(arrays.frame, voxels).numpy()

    rows = arrays.store.get(f"identity-{key[:24]}", compute, identity.fit_rows(len(people)))
    return Identity.fitted(arrays.frame, torch.from_numpy(rows))


class _Search:
    """A set, as it lies or aligned, ready to be searched."""

    def __init__(self, arrays: Arrays, target: str, form: int) -> None:
        self.identity = identity_of(arrays, target, form)
        self.residuals = self.identity.residuals(torch.from_numpy(arrays.forms(target)[:, form]))
        _, widths = _scale(self.identity.agreement(self.residuals, self.residuals))
        self.widths = widths.median(dim=1, keepdim=True).values  # [15,1] of an ordinary volume

    def best(self, voxels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Statistic and number of each volume's best match, `[N,15]`.

        The spread of a volume's agreements with all others is its own scale: a blurred or noisy volume agrees more or
        less with everybody. One part alone would give too rough a scale, so the median of all 15 widens or narrows the
        ordinary widths of the parts.
        """
        parts = [self._best(rows) for rows in voxels.split(_ROWS)]
        statistic, match = (torch.cat([part[i] for part in parts], dim=1).T.double().numpy() for i in (0, 1))
        return statistic, match

    def _best(self, voxels: Tensor) -> tuple[Tensor, Tensor]:
        agreement = self.identity.agreement(self.identity.residuals(voxels), self.residuals)
        middle, widths = _scale(agreement)
        own = (widths / self.widths).median(dim=0).values
        best = agreement.max(dim=2)
        return (best.values - middle) / (self.widths * own).clamp(min=_LEAST_WIDTH), best.indices


def _scale(agreement: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and robust SD `[15,N]` of each volume's agreements `[15,N,M]` in each part."""
    low, middle, high = torch.quantile(agreement, _QUARTERS, dim=2)
    return middle, ((high - low) / 1.349).clamp(min=_LEAST_WIDTH)


def judged(matches: Matches, null: Matches) -> Verdicts:
    """P values of each volume's most outstanding part, by a Gumbel tail fitted to people that are no copies.

    Each of these people is measured by the others, as a new one is: else the largest of 15 parts looks too tame.
    Raises NotApplicable for a null of fewer than 8 people.
    """
    if len(null.statistic) < FEWEST:
        raise NotApplicable(
            f"{len(null.statistic)} real people outside the set are too few to know what a copy is; it takes {FEWEST}"
        )
    others = [
        _standardised(np.delete(null.statistic, i, axis=0), row) for i, row in enumerate(null.statistic)
    ]
    excess = _standardised(null.statistic, matches.statistic)
    return Verdicts(gumbel_p(np.max(others, axis=1), excess.max(axis=1)), excess.argmax(axis=1))


def _standardised(null: np.ndarray, statistic: np.ndarray) -> np.ndarray:
    """Statistics `[...,15]` by the middle and spread of the null's; parts of one size share theirs."""
    centre, variance, standardised = null.mean(axis=0), null.var(axis=0, ddof=1), np.empty_like(statistic)
    for parts in SIZES:
        spread = max(float(variance[parts].mean()) ** 0.5, 1e-6)
        standardised[..., parts] = (statistic[..., parts] - centre[parts].mean()) / spread
    return standardised


def likenesses(arrays: Arrays, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Correlation `[N]` of each sample's whole residual with that of its best match in a set, as both lie; its number.

    Without a null it says what is a copy only where it is near 1. Raises NotApplicable for sets of equal volumes.
    """
    fitted = identity_of(arrays, target, form=0)
    samples, others = (
        fitted.residuals(torch.from_numpy(arrays.forms(name)[:, 0])) for name in ("samples", target)
    )
    best = fitted.agreement(samples, others)[0].max(dim=1)
    return best.values.tanh().double().numpy(), best.indices.numpy()


def described(part: int, form: int) -> str:
    """For example "left half, mirrored, after alignment"."""
    words = [PARTS[part]] if part else ["whole volume"]
    words += ["mirrored"] if form >= 2 else []
    words += ["after alignment"] if form % 2 else []
    return ", ".join(words)
