"""The evaluation contract: cohort roles, size, sample counts, metrics. Versioned TOML, identified by digest."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mribench.data.cohort import CohortPlan, CohortSpec
from mribench.errors import UsageError
from mribench.files import digest_json
from mribench.metrics import METRIC_REGISTRY, default_metrics
from mribench.metrics.gates.thresholds import GateThresholds


class EvaluationSpec(BaseModel):
    """What every entrant must deliver and how it is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(ge=2)
    tsne_samples: int = Field(ge=1)
    extractor: str = "effnet-lite0"
    metrics: tuple[str, ...] = Field(default_factory=default_metrics)
    gates: GateThresholds = GateThresholds()


class Protocol(BaseModel):
    """One protocol in full; `training` holds defaults only and is no part of the contract."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    version: int = Field(ge=1)
    seed: int
    cohort: CohortSpec
    evaluation: EvaluationSpec
    training: dict[str, Any] = {}

    @property
    def digest(self) -> str:
        """Identity of the contract: canonical JSON of everything but the training defaults.

        Thresholds of gates count where they are not the usual ones: benches of a time before gates keep their digest.
        """
        usual = self.evaluation.gates == GateThresholds()
        exclude: dict[str, Any] = {"training": True, "evaluation": {"gates"}} if usual else {"training": True}
        return digest_json(self.model_dump(mode="json", exclude=exclude))

    @property
    def cohort_plan(self) -> CohortPlan:
        """What making the cohort needs to know."""
        return CohortPlan(self.cohort, self.seed, self.digest)

    def training_for(self, model: str) -> dict[str, Any]:
        """The `[training]` defaults for one model: the common ones, then `[training.MODEL]`."""
        common = {k: v for k, v in self.training.items() if not isinstance(v, dict)}
        return {**common, **self.training.get(model, {})}


def shipped() -> list[str]:
    """Names of the protocols that come with the package."""
    folder = resources.files("mribench.bench.protocols")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load_protocol(name: str, *, simulated: bool = False) -> Protocol:
    """A shipped protocol by name, or any TOML file by path.

    `simulated` puts the embedded cohort in the place of prepared volumes and says so in the name.
    Raises UsageError for an unknown name or an invalid file.
    """
    if name in shipped():
        text = (resources.files("mribench.bench.protocols") / f"{name}.toml").read_text()
    elif name.endswith(".toml") and Path(name).is_file():
        text = Path(name).read_text()
    else:
        near = difflib.get_close_matches(name, shipped(), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"Protocol must be one of {', '.join(shipped())} or the path of a .toml file, not {name!r}.{hint}"
        )
    try:
        protocol = Protocol.model_validate(tomllib.loads(text))
        for metric in protocol.evaluation.metrics:
            METRIC_REGISTRY.check(metric)
    except (tomllib.TOMLDecodeError, ValidationError, UsageError) as error:
        raise UsageError(f"{name} must be a valid protocol, but: {error}") from error
    if simulated and protocol.cohort.source != "simulated":
        cohort = protocol.cohort.model_copy(update={"source": "simulated"})
        protocol = protocol.model_copy(update={"cohort": cohort, "name": f"{protocol.name}-simulated"})
    return protocol


def differences(expected: Any, got: Any, where: str = "") -> list[str]:
    """Lines "key: expected X, got Y" for every leaf in which two JSON values differ."""
    if isinstance(expected, dict) and isinstance(got, dict):
        keys = sorted(expected.keys() | got.keys())
        return [
            line
            for key in keys
            for line in differences(expected.get(key), got.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if expected == got else [f"{where}: expected {expected!r}, got {got!r}"]
