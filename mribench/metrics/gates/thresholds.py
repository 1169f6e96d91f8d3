"""The false-alarm rates of the gates, in one place."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GateThresholds(BaseModel):
    """The false-alarm rate of each gate for one entrant, nominally 0.6 % together, and what they take for large."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    copies: float = Field(default=0.001, gt=0, lt=0.5)
    identical: float = Field(default=0.001, gt=0, lt=0.5)
    repeats: float = Field(default=0.001, gt=0, lt=0.5)
    orientation: float = Field(default=0.001, gt=0, lt=0.5)
    joins: float = Field(default=0.001, gt=0, lt=0.5)
    anatomy: float = Field(default=0.001, gt=0, lt=0.5)
    least_variety: float = Field(
        default=0.03, gt=0, lt=1
    )  # variance of blurred samples over that of blurred people
    near_equal: float = Field(
        default=0.9, gt=0, lt=1
    )  # correlation of residuals that is a copy without any null
    least_outlying: float = Field(default=8.0, gt=0)  # standard deviations by which a joined place stands out
