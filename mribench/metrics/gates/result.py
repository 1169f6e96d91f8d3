"""What a gate says of an entrant, as it is written to scores.json."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Suspect(_Record):
    """One sample that a gate objects to, and the volume that it resembles."""

    sample: str
    sample_index: int
    source: str  # set of the other volume: "train", "reference", "holdout" or "samples"
    match: str = ""  # its name there
    match_index: int | None = None
    how: str = ""  # what relates them, e.g. "mirrored, shifted by 1 voxel", "left half"
    p_value: float | None = None  # after Holm's correction over the samples


class GateResult(_Record):
    """The verdict of one gate. `passed` is None where these sets cannot be judged; `reason` says why."""

    gate: str
    title: str
    passed: bool | None
    reason: str  # one sentence: what was found, in how many samples, at what level
    level: float  # false-alarm rate of the gate for one entrant
    p_value: float | None = None  # of the whole entrant
    version: str = ""  # digest of the definition and the thresholds
    suspects: tuple[Suspect, ...] = ()  # the surest first
    holds_back: bool = (
        True  # from ranks; otherwise a failed gate places the entrant behind those that pass it
    )
    seconds: float = 0.0
