"""The records of a bench: one class a file, which the step that makes the file writes and every later step reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from mribench.bench.protocol import Protocol
from mribench.data.foreign.recipe import LeftOut, Passage, Recipe
from mribench.data.records import CohortRecord
from mribench.data.volume_set import Slab
from mribench.files import Record, digest_json, first_error
from mribench.metrics.gates.result import GateResult
from mribench.metrics.regions import RegionRow
from mribench.metrics.score import Missing, Score
from mribench.runtime import DeviceRecord

Kind = Literal["model", "control", "folder"]
RUN_NAME = r"[a-z0-9][a-z0-9_.-]{0,79}"


class _Part(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class BenchRecord(Record):
    """bench.json: the protocol in full, and its digest, which shows a change by hand."""

    SCHEMA: ClassVar[str] = "mribench/bench/1"

    protocol: Protocol
    protocol_digest: str
    versions: dict[str, str] = {}
    packages: dict[
        str, str
    ] = {}  # "metric NAME" or "extractor NAME" -> "NAME VERSION" of the plug-in it comes from


class StartRecord(_Part):
    """The weights that a training started from."""

    name: str  # of the file, without its folder; "pretrained": shipped with mribench
    digest: str
    networks: tuple[str, ...]  # that the file had weights of


class AdoptionRecord(_Part):
    """How samples that another program stored became an entrant: `count` of them, and the files that are not used."""

    recipe: Recipe
    count: NonNegativeInt
    left_out: tuple[LeftOut, ...] = ()


class BudgetRaise(_Part):
    """A training that went on with a larger budget than the one here: how far it was, and its weights if it was done.

    `restarted`: its learning rates follow the budget, so they rose again, and the weights are not those of one training
    with the larger budget.
    """

    budget: NonNegativeInt
    step: NonNegativeInt
    seen: NonNegativeInt
    weights_digest: str = ""
    restarted: bool = False


class ProcessCount(_Part):
    """How many processes shared the batches from a step of a training on."""

    step: NonNegativeInt
    processes: NonNegativeInt


class RunRecord(Record):
    """run.json: what makes an entrant's samples; written before anything else of the run."""

    SCHEMA: ClassVar[str] = "mribench/run/1"

    kind: Kind
    model: str | None = None
    package: str = ""  # "NAME VERSION" of the plug-in that the model comes from; "": mribench itself
    title: str = ""
    what: str = ""  # one sentence about a control
    preset: str | None = None
    config: dict[str, Any] = {}  # the model's settings, in the types that its own class defines
    seed: int | None = None
    cohort_digest: str | None = None
    protocol_digest: str | None = None
    parameters: dict[str, NonNegativeInt] = {}  # sub-network -> count
    versions: dict[str, str] = {}
    device: DeviceRecord | None = None
    start: StartRecord | None = None  # None: from scratch
    raised: tuple[BudgetRaise, ...] = ()
    shared: tuple[ProcessCount, ...] = ()  # changes of the number of processes; (): always one
    weights_of: str | None = Field(default=None, pattern=f"^{RUN_NAME}$")  # a run; None: weights of its own
    sampler: dict[str, Any] = {}  # settings of `config` that differ from those of `weights_of`
    adoption: AdoptionRecord | None = None
    door_of: str = ""  # the adopted entrant whose recipe this control tries on real volumes

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides the weights, whatever the seed: equal for trainings that are ranked as one."""
        restarts = [{"restarted": each.seen} for each in self.raised if each.restarted]
        decides = self.model_dump(mode="json", include={"kind", "model", "config", "cohort_digest"})
        if self.start is not None:
            decides["start"] = self.start.digest
        return {**decides, "restarts": restarts} if restarts else decides

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the weights or the samples: compared when a command is run again."""
        decides = self.model_dump(mode="json", include={"kind", "model", "config", "seed", "cohort_digest"})
        if self.start is not None:
            decides["start"] = self.start.digest
        if self.weights_of is not None:
            decides["weights_of"] = self.weights_of
        if self.adoption is not None:
            decides["recipe"] = self.adoption.recipe.model_dump(mode="json")
        return decides

    @property
    def digest(self) -> str:
        """SHA-256 of `identity`."""
        return digest_json(self.identity)

    @property
    def digests(self) -> set[str]:
        """`digest`, and those that it had before its budget was raised."""
        budgets = [each.budget for each in self.raised]
        earlier = [self.model_copy(update={"config": {**self.config, "budget": b}}) for b in budgets]
        return {record.digest for record in (self, *earlier)}


class WeightsRecord(Record):
    """weights.json: the end of a training."""

    SCHEMA: ClassVar[str] = "mribench/weights/1"
    REMEDY: ClassVar[str] = (
        "Run `mribench train` again: it writes weights and record anew from the checkpoint."
    )

    digest: str  # of weights.safetensors
    run_digest: str
    step: NonNegativeInt
    seen: NonNegativeInt
    seconds: NonNegativeFloat
    device: DeviceRecord | None = None


class Checkpoint(BaseModel):
    """What checkpoint/state.pt holds: the state after `step` steps and `seen` volumes of the run with this digest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    run_digest: str
    step: NonNegativeInt
    seen: NonNegativeInt
    seconds: NonNegativeFloat
    model: dict[str, Any]
    optimizers: dict[str, dict[str, Any]]


class StepScore(_Part):
    """The value of a metric during a training, with its 95 % interval, and the number of samples."""

    value: float
    low: float
    high: float
    samples: NonNegativeInt


class TrainingStep(_Part):
    """A line of training.jsonl: after `step` steps and `seen` volumes, `seconds` of training in all (scoring apart)."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=True)

    step: NonNegativeInt
    seen: NonNegativeInt
    seconds: NonNegativeFloat
    losses: dict[str, float] = {}
    scores: dict[str, StepScore] = {}  # metric -> score of samples made after this step


class SampleFile(_Part):
    """One volume of samples/: digests of its voxels and of the file, and how long it took to make."""

    index: NonNegativeInt = 0
    name: str
    digest: str
    file_digest: str = ""
    seconds: NonNegativeFloat | None = None
    passage: Passage | None = None  # of an adopted volume


class SamplesRecord(Record):
    """samples.json: the volumes of an entrant, and the digest of what they were made from."""

    SCHEMA: ClassVar[str] = "mribench/samples/1"

    made_from: str
    seed: int | None = None
    slab: Slab | None = None
    shape: tuple[int, int, int]  # of one volume, [D,H,W]
    device: DeviceRecord | None = None
    sampler: dict[str, Any] = {}  # settings of the sampler that differ from the training's
    files: tuple[SampleFile, ...] = ()
    description_digest: str = ""  # of samples/dataset_description.json; "": written before there was one

    @model_validator(mode="after")
    def _check_names(self) -> SamplesRecord:
        for file in self.files:
            if Path(file.name).name != file.name:
                raise ValueError(f"files must lie in samples/, but one is named {file.name!r}")
        return self


class ScoresRecord(Record):
    """scores.json: an entrant's scores, and the metrics that it has no score of.

    A score that cannot be read becomes one of the missing metrics, so that the others stay readable.
    """

    SCHEMA: ClassVar[str] = "mribench/scores/2"

    entrant: str = ""
    made_from: str = ""
    protocol_digest: str | None = None
    samples_digest: str | None = None
    reference_digest: str | None = None
    rescale: tuple[float, float] | None = None  # of scores without a bench
    scores: tuple[Score, ...] = ()
    missing: tuple[Missing, ...] = ()
    gates: tuple[GateResult, ...] = ()
    regions: tuple[RegionRow, ...] = ()  # where anatomy has a score
    seconds: NonNegativeFloat = 0.0

    @model_validator(mode="before")
    @classmethod
    def _set_damaged_scores_apart(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("scores"), list):
            return data
        scores, missing = [], list(data.get("missing") or [])
        for entry in data["scores"]:
            try:
                scores.append(Score.model_validate(entry))
            except ValidationError as error:
                metric = str(entry.get("metric")) if isinstance(entry, dict) else "unknown"
                missing.append(
                    Missing(
                        metric=metric, reason=f"The score in scores.json is damaged: {first_error(error)}."
                    )
                )
        return {**data, "scores": scores, "missing": missing}


class NearestPair(_Part):
    """A sample and its most similar training volume; `second`: similarity of the next one."""

    sample: str
    sample_index: NonNegativeInt
    neighbour: str
    neighbour_index: NonNegativeInt
    similarity: float
    second: float
    mirrored: bool = False  # the neighbour is most similar after its left and right are exchanged
    ratio: float | None = None  # of the two distances 1 - similarity; near 0 for a copy
    copied: bool | None = None


class NearestRecord(Record):
    """nearest.json: every sample's most similar training volume, the most similar pair first."""

    SCHEMA: ClassVar[str] = "mribench/nearest/2"

    made_from: str = ""
    definition: str = ""
    copy_threshold: float = 0.5
    pairs: tuple[NearestPair, ...] = ()


class EmbeddingRecord(Record):
    """embedding/tsne.json: the digests of what tsne.csv was made from and of tsne.csv itself."""

    SCHEMA: ClassVar[str] = "mribench/embedding/1"
    REMEDY: ClassVar[str] = "Run: mribench report"

    made_from: str
    table_digest: str = ""  # "": written before version 0.2.0


# File, below the folder of a bench -> its record.
RECORDS: dict[str, type[Record]] = {
    "bench.json": BenchRecord,
    "cohort/volumes.json": CohortRecord,
    "runs/NAME/run.json": RunRecord,
    "runs/NAME/weights.json": WeightsRecord,
    "runs/NAME/samples.json": SamplesRecord,
    "runs/NAME/scores.json": ScoresRecord,
    "runs/NAME/nearest.json": NearestRecord,
    "embedding/tsne.json": EmbeddingRecord,
}
