"""The one interface of all generators: the model owns its recipe, the loop owns the machinery."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from pydantic import ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from mribench.data.grid import Box, Sides
from mribench.data.volume_set import Slab
from mribench.errors import MribenchError, UsageError
from mribench.files import atomic
from mribench.models.joint_batch import add_up_gradients, own_share
from mribench.runtime import Noise, derive, without_autocast

NextBatch = Callable[[], Tensor]  # -> [B,1,D,H,W] in [-1,1]
DIVERGED = 1e9  # a loss of this size will not come back
REFRESH_BATCHES, REFRESH_BATCH = 25, 8  # 200 prior samples for the statistics of BatchNorm


class GeneratorConfig(Box):
    """What every generator must be told; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int = Field(ge=8, le=512)  # voxels per side of the volumes it makes, where they are cubes
    shape: Sides | None = None  # their voxels along x, y and z, where they are not: `Generator.cubes_only`
    batch_size: int = Field(ge=1)  # volumes per batch drawn
    budget: int = Field(ge=1)  # volumes seen in the whole training
    warmup: int = Field(default=0, ge=0)  # steps over which the learning rates rise
    decay_from: float = Field(default=1.0, ge=0, le=1)  # share of the budget after which they fall linearly
    decay_to: float = Field(default=0.02, gt=0, le=1)  # share of themselves that they fall to at its end

    @property
    def rates_follow_budget(self) -> bool:
        """Whether the learning rates depend on the budget, so that a raised budget changes their course."""
        return self.decay_from < 1

    def rate_share(self, step: int, seen: int, budget: float | None = None) -> float:
        """Share of the learning rates that the update after `step` steps and `seen` volumes of a budget uses."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        if self.decay_from == 1:
            return rise
        fallen = min(1.0, max(0.0, seen / (budget or self.budget) - self.decay_from) / (1 - self.decay_from))
        return rise * (1 - fallen * (1 - self.decay_to))


class Generator(nn.Module):
    """A trainable source of brain volumes.

    The class says everything about the model; lists, cards, checks and tests read it here. Everything learned is
    a submodule (averaged copies too) and every optimizer is in `optimizers`, so one checkpoint format is enough.
    """

    title: ClassVar[str]  # the paper's name
    summary: ClassVar[str]  # what it is: continues "TITLE: "
    source: ClassVar[str]  # the paper
    limits: ClassVar[str] = (
        "It can make only what its training volumes show, and it may repeat them: see memorisation, copy rate and "
        "the nearest training volumes."
    )
    Config: ClassVar[type[GeneratorConfig]]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]  # must have "tiny", 32^3 on a CPU
    SMALLEST: ClassVar[Mapping[str, Any]] = {}  # changes to "tiny" with which tests take seconds
    needs: ClassVar[tuple[str, ...]]  # submodules that sampling needs
    sampler_settings: ClassVar[tuple[str, ...]] = ()  # may be changed after training
    stages: ClassVar[tuple[str, ...]] = ("",)  # trainings that follow each other
    cubes_only: ClassVar[str] = "it knows one side length only"  # why; "" = it reads array_shape, never size
    shares_batches: ClassVar[bool] = False  # whether several processes may train it (see joint_batch.py)

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.optimizers: dict[str, Optimizer] = {}
        self.clip_norm: float | None = None
        self.stage = 0  # of `stages`
        self.unfinite: dict[str, Tensor] = {}  # per update: how often its loss or gradient was not finite

    @property
    def slab(self) -> Slab | None:
        """Axial slices [start, stop) that it makes; None = the whole volume."""
        return None

    def begin_step(self, step: int, seen: int) -> None:
        """Before each step of a training that has made `step` steps on `seen` volumes: its learning rates."""
        self.scale_rates(self.config.rate_share(step, seen))

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """All updates of all optimizers for one step; returns named scalar losses (detached)."""
        raise NotImplementedError(f"{type(self).__name__} must define training_step")

    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1], a function of the weights and of `noise` alone."""
        raise NotImplementedError(f"{type(self).__name__} must define sample")

    def descend(self, losses: Tensor | Iterable[Tensor], *names: str) -> None:
        """One step of each named optimizer down the gradient of a loss, or of the sum of several losses.

        Several (an iterator) run backward one by one, so that only one graph is alive; a name given twice steps
        twice with the same gradient. Networks of other optimizers get no gradient. The only place that zeroes,
        joins those of several processes, clips and steps; counts non-finite and diverging values without a device
        synchronisation.
        """
        chosen = [self.optimizers[name] for name in names]
        parameters = list({id(p): p for o in chosen for g in o.param_groups for p in g["params"]}.values())
        for optimizer in chosen:
            optimizer.zero_grad(set_to_none=True)
        bad = torch.zeros((), dtype=torch.bool, device=parameters[0].device)
        for loss in [losses] if isinstance(losses, Tensor) else losses:
            with without_autocast(loss):
                own_share(loss).backward(inputs=parameters)
            bad |= ~(loss.detach().abs() < DIVERGED)
        gradients = [p.grad for p in parameters if p.grad is not None]
        bad = add_up_gradients(gradients, bad)
        norm = nn.utils.get_total_norm(gradients)
        bad |= ~torch.isfinite(norm)
        label = " and ".join(dict.fromkeys(names))
        self.unfinite[label] = self.unfinite[label] + bad if label in self.unfinite else bad.int()
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        for optimizer in chosen:
            optimizer.step()

    def descend_mean(self, loss: Callable[[], Tensor], count: int, *names: str) -> Tensor:
        """As `descend`, down the mean of `count` losses, each computed after the backward pass of the one before.

        Returns the mean, detached.
        """
        parts: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for _ in range(count):
                part = loss() / count
                parts.append(part.detach())
                yield part

        self.descend(losses(), *names)
        return torch.stack(parts).sum()

    def scale_rates(self, share: float) -> None:
        """Set every learning rate to this share of the one that its optimizer was made with."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * share

    @torch.no_grad()
    def refresh_batchnorm(self, seed: int) -> None:
        """Replace the running statistics of every BatchNorm that sampling uses by those over prior samples.

        In training they mix encoded with prior codes and lag behind the weights. Does nothing without BatchNorm.
        """
        layers = [
            m for name in self.needs for m in self.get_submodule(name).modules() if isinstance(m, _BatchNorm)
        ]
        if not layers:
            return
        device, momenta = next(self.parameters()).device, [layer.momentum for layer in layers]
        self.eval()
        for layer in layers:
            layer.train().reset_running_stats()
            layer.momentum = None  # the plain mean over all batches
        for batch in range(REFRESH_BATCHES):
            self.sample(Noise([derive(seed, "refresh", batch, i) for i in range(REFRESH_BATCH)], device))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        self.train()

    @classmethod
    def card(cls) -> str:
        """Title, summary and source as one sentence."""
        return f"{cls.title}: {cls.summary} ({cls.source})."

    @classmethod
    def build_config(cls, preset: str, **overrides: Any) -> GeneratorConfig:
        """The preset's config with overrides; raises UsageError for unknown presets, keys and bad values."""
        if preset not in cls.PRESETS:
            raise UsageError(f"Preset must be one of {', '.join(cls.PRESETS)}, not {preset!r}.")
        cls.check_names(overrides)
        settings = cls.PRESETS[preset]
        if overrides.get("shape") is not None:
            settings = cls.reshaped(settings, overrides)
        elif "size" in overrides:
            settings = {name: value for name, value in settings.items() if name != "shape"}
        return cls.read_config(cls.merge(settings, overrides))

    @classmethod
    def reshaped(cls, settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """A preset's settings for volumes of the overrides' `shape`, without its own size."""
        return {name: value for name, value in settings.items() if name not in ("size", "shape")}

    @classmethod
    def merge(cls, settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """`settings` with overrides; a model drops here what an override makes meaningless."""
        return {**settings, **overrides}

    @classmethod
    def check_names(cls, settings: Iterable[str]) -> None:
        """Raise UsageError, with the nearest name, for a setting that this model does not have."""
        for key in settings:
            if key not in cls.Config.model_fields:
                near = difflib.get_close_matches(key, cls.Config.model_fields, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise UsageError(f"{cls.title} has no setting {key!r}.{hint}")

    @classmethod
    def check_sampler_settings(cls, settings: Iterable[str]) -> None:
        """Raise UsageError for settings that decide the network or its training, or that this model does not have."""
        if fixed := set(settings) - set(cls.sampler_settings):
            cls.check_names(fixed)
            changeable = ", ".join(cls.sampler_settings) or "nothing"
            raise UsageError(
                f"{', '.join(sorted(fixed))} cannot change after training; of {cls.title} only {changeable} can."
            )

    @classmethod
    def read_config(cls, values: Mapping[str, Any]) -> GeneratorConfig:
        """A config from plain values; raises UsageError naming the setting that is wrong."""
        shape = values.get("shape")
        if cls.cubes_only and isinstance(shape, list | tuple) and len(set(shape)) > 1:
            raise UsageError(
                f"{cls.title} makes cubes only, because {cls.cubes_only}, but shape = {list(shape)} was asked for. "
                "docs/models.md says which models can make other volumes."
            )
        try:
            return cls.Config.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            reason = first["msg"].removeprefix("Value error, ")
            what = f"cannot have {where} = {first['input']!r}" if where else "cannot have these settings"
            raise UsageError(f"{cls.title} {what}: {reason}.") from error

    def parameter_count(self) -> dict[str, int]:
        """Parameters of each learned sub-network; averaged copies are left out."""
        return {
            name: sum(p.numel() for p in child.parameters())
            for name, child in self.named_children()
            if not name.startswith("ema") and any(True for _ in child.parameters())
        }

    @classmethod
    def count_parameters(cls, config: GeneratorConfig) -> dict[str, int]:
        """`parameter_count` of a configuration, without allocating the parameters."""
        with torch.device("meta"):
            return cls(config).parameter_count()

    def save(self, path: Path) -> None:
        """Write the submodules named in `needs` as safetensors, atomically."""
        state = {
            f"{name}.{key}": value.detach().cpu().contiguous()
            for name in self.needs
            for key, value in self.get_submodule(name).state_dict().items()
        }
        with atomic(path) as temporary:
            temporary.write_bytes(safetensors.torch.save(state))

    def complete_start(self, missing: set[str]) -> None:
        """After weights were copied from a file: fill what it lacked (`missing`, names of tensors) if it follows."""

    def load(self, path: Path) -> None:
        """Read what `save` wrote; raises MribenchError when the file does not fit this model."""
        try:
            state = safetensors.torch.load_file(path)
            for name in self.needs:
                mine = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
                self.get_submodule(name).load_state_dict(mine)
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise MribenchError(
                f"{path} must hold weights of {self.title} with these settings, but: {reason}. Train again."
            ) from error
