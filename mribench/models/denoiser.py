"""What the two diffusion models share: settings, noising and loss of training, averaged network, samplers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mribench.models.diffusion import Diffusion, average_weights
from mribench.models.generator import Generator, GeneratorConfig
from mribench.models.joint_batch import draw_normal_like, own_rows
from mribench.models.noise_levels import Prediction, draw_flow_sigma, draw_sigma, min_snr_weight, read
from mribench.models.solvers import Sampler, karras_levels, level_count, solve
from mribench.runtime import Noise

TIMED = ("eps", "x0", "v")  # predictions at the discrete times of a schedule
# Two recipes for short trainings (docs/learning.md): the decay must end with the budget, so it is part of both.
DECAY: dict[str, Any] = {"warmup": 40, "decay_from": 0.5, "beta2": 0.99, "clip_norm": 1.0}
FLOW: dict[str, Any] = {
    **DECAY,
    "prediction": "flow",
    "levels": "log_normal",  # of flow's time: logit-normal
    "sampler": "dpmpp",
    "calls": 8,
}
EDM: dict[str, Any] = {
    **FLOW,
    "prediction": "edm",
    "level_mean": -0.8,
    "level_spread": 1.4,
}


class DiffusionConfig(GeneratorConfig):
    """Settings of both; the defaults are cDPM's."""

    base: int = Field(default=128, ge=2, multiple_of=2)  # channels at full size
    multipliers: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 1, 2, 3, 4), min_length=1)
    res_blocks: int = Field(default=2, ge=1)
    # In-plane sizes, pixels; of volumes that are no cubes, their longest side at that level. The middle always attends.
    attention_sizes: tuple[int, ...] = (16, 8)
    steps: int = Field(default=1000, ge=21)  # T; at 20 the linear schedule would end in beta = 1
    prediction: Prediction = "eps"
    levels: Literal["uniform", "log_normal"] = "uniform"  # which noise levels training draws
    level_mean: float = 0.0  # of log sigma, with log_normal
    level_spread: float = Field(default=1.0, gt=0)
    weighting: Literal["plain", "min_snr"] = "plain"  # of the loss over noise levels
    variance: Literal["large", "small"] = "large"  # of the ancestral sampler
    ddim_steps: int | None = None  # None = ancestral over all T
    eta: float = Field(default=0.0, ge=0, le=1)  # DDIM: 0 deterministic, 1 as noisy as ancestral
    sampler: Sampler | None = None  # None = the training's own times: ddim_steps, eta and variance decide
    calls: int | None = Field(default=None, ge=1)  # most network calls of `sampler`, a stage; None = 20
    sigma_max: float | None = Field(default=None, gt=0)  # None = of the schedule, or 20 (edm, flow)
    sigma_min: float | None = Field(default=None, gt=0)  # None = of the schedule, or 0.03 (edm, flow)
    learning_rate: float = Field(default=1e-4, gt=0)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)  # of the gradient
    ema: float = Field(default=0.9999, ge=0, lt=1)

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width of a slice, pixels."""
        return self.array_shape[1:]

    @model_validator(mode="after")
    def _fits(self) -> DiffusionConfig:
        unit = 2 ** (len(self.multipliers) - 1)
        if any(side % unit for side in self.plane):
            raise ValueError(
                f"{'size' if self.is_cube else 'the sides of a slice'} must be a multiple of {unit}"
                f"{'' if self.is_cube else f', but a slice has {self.plane[0]} x {self.plane[1]} pixels'}"
            )
        levels = [self.size >> level for level in range(len(self.multipliers))]
        if strange := set(self.attention_sizes) - set(levels):
            raise ValueError(
                f"attention_sizes must be among {levels}, the in-plane sizes of the network, not {strange}"
            )
        if self.ddim_steps is not None and not 0 < self.ddim_steps <= self.steps:
            raise ValueError(f"ddim_steps must be between 1 and {self.steps}")
        self._check_sampler()
        return self

    def _check_sampler(self) -> None:
        if self.sampler is not None and self.ddim_steps is not None:
            raise ValueError(
                "ddim_steps must be absent with a sampler; calls says how many network calls it makes"
            )
        if self.sampler is None:
            if self.eta > 0 and self.ddim_steps is None:
                raise ValueError(
                    "eta must be 0 without ddim_steps; the ancestral sampler has variance instead"
                )
            if self.prediction not in TIMED:
                raise ValueError(
                    f"{self.prediction} needs a sampler, for example sampler=dpmpp with calls=20"
                )
            unused = [name for name in ("calls", "sigma_max", "sigma_min") if getattr(self, name) is not None]
            if unused:
                raise ValueError(
                    f"{', '.join(unused)} can be set with a sampler only, for example sampler=dpmpp"
                )
        if self.prediction == "edm" and self.levels == "uniform":
            raise ValueError("edm needs levels=log_normal")
        if (self.sigma_min or 0.0) >= (self.sigma_max or float("inf")):
            raise ValueError("sigma_min must be less than sigma_max")


class Noised(NamedTuple):
    """An example of training: what the network is given, at which times `[B]`, what it must answer, its weight."""

    x_t: Tensor
    times: Tensor
    target: Tensor
    weight: Tensor | None  # `[B]`; None = 1


class DiffusionGenerator(Generator):
    """A network `net` trained to denoise; its running average `ema` makes the samples."""

    needs = ("ema",)
    cubes_only = ""
    level_settings: ClassVar[tuple[str, ...]] = ("attention_sizes",)  # they name levels by their size
    shares_batches = True
    sampler_settings: ClassVar[tuple[str, ...]] = (
        "ddim_steps",
        "eta",
        "variance",
        "sampler",
        "calls",
        "sigma_max",
        "sigma_min",
    )
    updates: Tensor  # optimizer steps so far

    def __init__(self, config: Any, net: nn.Module, betas: Tensor) -> None:
        super().__init__(config)
        self.net = net
        self.ema = copy.deepcopy(net).requires_grad_(False)
        self.diffusion = Diffusion(betas, config.prediction)
        self.clip_norm = config.clip_norm
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @classmethod
    def merge(cls, settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """A sampler in the overrides replaces the DDIM of the settings, and `ddim_steps` the sampler."""
        kept = dict(settings)
        if overrides.get("sampler") is not None:
            kept.pop("ddim_steps", None)
        elif (
            overrides.get("ddim_steps") is not None
            and overrides.get("prediction", kept.get("prediction")) in TIMED
        ):
            for name in ("sampler", "calls", "sigma_max", "sigma_min"):
                kept.pop(name, None)
        return {**kept, **overrides}

    @classmethod
    def reshaped(cls, settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The same levels of the network are named, by the longest side there."""
        longest, fields = max(overrides["shape"]), cls.Config.model_fields
        named = {name: settings.get(name, fields[name].default) for name in cls.level_settings}
        renamed = {
            name: tuple(longest // (settings["size"] // size) for size in sizes)
            for name, sizes in named.items()
        }
        return {**super().reshaped(settings, overrides), **renamed}

    def noised(self, x_0: Tensor) -> Noised:
        """`x_0 [B,...]` with noise of the levels that the settings ask for, one level a volume."""
        c = self.config
        if c.levels == "uniform" and c.prediction != "flow":
            t = own_rows(lambda n: torch.randint(c.steps, (n,), device=x_0.device), len(x_0))
            noise = draw_normal_like(x_0)
            x_t, target = self.diffusion.add_noise(x_0, noise, t), self.diffusion.target(x_0, noise, t)
            sigma = ((1 - self.diffusion.signal[t]) / self.diffusion.signal[t]).sqrt()
            return Noised(x_t, t, target, self._weight(sigma))
        if c.levels == "uniform":
            sigma = own_rows(lambda n: draw_flow_sigma(n, x_0.device), len(x_0))
        else:
            sigma = own_rows(lambda n: draw_sigma(n, c.level_mean, c.level_spread, x_0.device), len(x_0))
        z = x_0 + sigma.to(x_0.dtype).reshape(-1, *[1] * (x_0.dim() - 1)) * draw_normal_like(x_0)
        reading = read(c.prediction, sigma, self.diffusion)
        return Noised(reading.given(z), reading.time, reading.target(x_0, z), self._weight(sigma))

    def _weight(self, sigma: Tensor) -> Tensor | None:
        if self.config.weighting == "plain":
            return None
        return min_snr_weight(sigma, read(self.config.prediction, sigma, self.diffusion))

    def complete_start(self, missing: set[str]) -> None:
        """A file with the averaged network alone starts both."""
        if any(name.startswith("net.") for name in missing):
            self.net.load_state_dict(self.ema.state_dict())

    def decay(self) -> Tensor:
        """Share of the past, float64, that the average keeps at the step after `updates` steps."""
        raise NotImplementedError(f"{type(self).__name__} must define decay")

    def average(self) -> None:
        """Count an optimizer step; the average keeps its share `decay` and takes the rest from the network."""
        average_weights(self.ema, self.net, self.decay())
        self.updates += 1

    def denoise(
        self, predict: Callable[[Tensor, Tensor], Tensor], noise: Noise, shape: tuple[int, ...]
    ) -> Tensor:
        """`[B,*shape]` in [-1,1] from pure noise by the sampler of the settings; `predict` as in Diffusion.sample."""
        c = self.config
        if c.sampler is None:
            return self.diffusion.sample(
                predict, noise, shape, ddim_steps=c.ddim_steps, eta=c.eta, variance=c.variance
            )

        def estimate(z: Tensor, sigma: float) -> Tensor:
            level = torch.full((len(z),), sigma, dtype=torch.float64, device=z.device)
            reading = read(c.prediction, level, self.diffusion)
            return reading.estimate(z, predict(reading.given(z), reading.time).float())

        return solve(c.sampler, estimate, noise, shape, self._levels(), c.eta)

    def _levels(self) -> list[float]:
        """The noise levels that the sampler goes through."""
        c = self.config
        largest, smallest = 20.0, 0.03  # log sigma 3 and -3.5: rarer than 1 in 400 in training
        if c.prediction in TIMED:
            signal = self.diffusion.signal
            largest, smallest = (float(((1 - a) / a).sqrt()) for a in (signal[-1], signal[0]))
        return karras_levels(
            c.sigma_max or largest, c.sigma_min or smallest, level_count(c.sampler, c.calls or 20)
        )
