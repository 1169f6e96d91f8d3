"""What the four GANs of the Kwon family share: their settings, the prior, sampling, the gradient penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from mribench.models.blocks import GRID, VolumeGenerator
from mribench.models.generator import Generator, GeneratorConfig
from mribench.models.joint_batch import draw_normal, draw_uniform
from mribench.runtime import Noise

Width = Annotated[int, Field(ge=2)]

# For a CPU: a quarter of the widths, one stage less, as many voxels per latent dimension as at 64^3, a high rate.
NATIVE_32: dict[str, Any] = {"size": 32, "channels": (16, 32, 64), "latent": 128, "learning_rate": 1e-3}
SMALLEST: dict[str, Any] = {"size": 16, "channels": (8, 16), "latent": 12}
# 64^3 is the size of the public code. At 128^3 the same networks are kept and the volume is enlarged (the route
# that the cDPM authors' group later published), or one more stage with halved outer width is added.
NATIVE_64: dict[str, Any] = {"size": 64, "channels": (64, 128, 256, 512)}
UPSAMPLED_128: dict[str, Any] = {"size": 128, "channels": (64, 128, 256, 512)}
NATIVE_128: dict[str, Any] = {"size": 128, "channels": (32, 64, 128, 256, 512)}


class LatentGANConfig(GeneratorConfig):
    """Settings of the whole family."""

    batch_size: int = Field(default=4, ge=1)
    latent: int = Field(default=1000, ge=1)
    channels: tuple[Width, ...] = Field(
        default=(64, 128, 256, 512), min_length=1
    )  # of the trunk, outermost first
    critic_norm: Literal["batch", "group"] = "batch"
    learning_rate: float = Field(default=2e-4, gt=0)
    critic_learning_rate: float | None = Field(default=None, gt=0)  # of D; None = learning_rate
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> LatentGANConfig:
        native = GRID << len(self.channels)
        if not self.is_cube:
            if any(side % (1 << len(self.channels)) for side in self.sides):
                raise ValueError(
                    f"{len(self.channels)} channels halve every side as often, so sides must be multiples of "
                    f"{1 << len(self.channels)}, but they are {list(self.sides)}"
                )
        elif self.size not in (native, 2 * native):
            raise ValueError(
                f"{len(self.channels)} channels make {native} voxels a side, or {2 * native} enlarged; "
                f"size must be one of them"
            )
        return self


class LatentGAN(Generator):
    """A generator G that turns a code of independent normal numbers into a volume."""

    needs = ("G",)
    shares_batches = True
    stem: ClassVar[str]  # of G
    cubes_only = ""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.G = VolumeGenerator(config.array_shape, config.channels, config.latent, self.stem)

    def adam(self, *names: str) -> dict[str, torch.optim.Optimizer]:
        """One Adam for each named network."""
        c = self.config
        rates = {"D": c.critic_learning_rate or c.learning_rate}
        return {
            name: torch.optim.Adam(
                self.get_submodule(name).parameters(),
                lr=rates.get(name, c.learning_rate),
                betas=(c.beta1, c.beta2),
            )
            for name in names
        }

    def prior(self, like: Tensor) -> Tensor:
        """Fresh codes `[B,L]` from N(0, I) for training, one per volume of `like`."""
        return draw_normal(len(like), self.config.latent, like=like)

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1]: one pass of G."""
        return self.G(noise.normal(self.config.latent))


def cross_entropy(logits: Tensor, label: float) -> Tensor:
    """Mean binary cross-entropy of logits with one label for all."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def gradient_at_mixture(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Gradient of each critic score at a random mixture of real and fake, as float32; same shape as `real`.

    One weight per sample, uniform in [0,1); differentiable a second time. The critic's layers compute in the
    autocast type, and so do the first and the second derivative.
    """
    share = draw_uniform(len(real), *[1] * (real.dim() - 1), like=real)
    mixture = (share * real + (1 - share) * fake).detach().float().requires_grad_()
    return torch.autograd.grad(critic(mixture).float().sum(), mixture, create_graph=True)[0]


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """mean over samples of (|gradient|_2 - 1)^2, the norm over all elements (Gulrajani et al. 2017, eq. 3).

    1e-15 under the root keeps it differentiable at 0.
    """
    gradient = gradient_at_mixture(critic, real, fake)
    return ((gradient.square() + 1e-15).flatten(1).sum(1).sqrt() - 1).square().mean()


def voxel_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """mean over voxels of (|gradient| - 1)^2, as the public 3-D WGAN-GP notebook computes it.

    It asks every single voxel for unit sensitivity and hardly reacts at the start; kept for comparison only.
    """
    return (gradient_at_mixture(critic, real, fake).abs() - 1).square().mean()


def critic_loss(
    critic: Callable[[Tensor], Tensor], real: Tensor, rebuilt: Tensor, made: Tensor, weight: float
) -> Tensor:
    """-2 D(real) + D(rebuilt) + D(made) + both gradient penalties: alpha-WGAN and CCE-GAN; fakes detached."""
    rebuilt, made = rebuilt.detach(), made.detach()
    distance = critic(rebuilt).mean() + critic(made).mean() - 2 * critic(real).mean()
    penalties = gradient_penalty(critic, real, made) + gradient_penalty(critic, real, rebuilt)
    return distance + weight * penalties
