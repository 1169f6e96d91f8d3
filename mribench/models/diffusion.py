"""Discrete-time Gaussian diffusion: schedules, targets, the two samplers (ancestral, DDIM), averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mribench.runtime import Noise


def linear_betas(steps: int) -> Tensor:
    """`[T]` float64 betas, 1e-4 to 0.02 at T = 1000, scaled so that other T reach the same noise (Ho 2020)."""
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)


def cosine_betas(steps: int) -> Tensor:
    """`[T]` float64 betas whose running product of 1 - beta falls like a squared cosine (Nichol & Dhariwal 2021)."""
    offset, largest = 0.008, 0.999
    angle = (torch.linspace(0, 1, steps + 1, dtype=torch.float64) + offset) / (1 + offset) * math.pi / 2
    kept = angle.cos().square()
    return (1 - kept[1:] / kept[:-1]).clamp(max=largest)


@torch.no_grad()
def average_weights(average: nn.Module, net: nn.Module, decay: Tensor) -> None:
    """Every weight of `average` keeps its share `decay` (float64) and takes the rest from `net`; 0 copies.

    On a GPU the share stays there, so that nothing waits; a copy may then be off by one unit in the last place.
    """
    old: list[Tensor] = list(average.parameters())
    new: list[Tensor] = list(net.parameters())
    if decay.device.type == "cpu":
        torch._foreach_lerp_(old, new, 1 - float(decay))
        return
    change = torch._foreach_sub(new, old)
    torch._foreach_mul_(change, (1 - decay).float())
    torch._foreach_add_(old, change)


def trailing_steps(total: int, count: int) -> list[int]:
    """`count` time steps from T-1 down, evenly spaced and including T-1 (999, 979, ..., 19 for 50 of 1000)."""
    return [round(total - i * total / count) - 1 for i in range(count)]


def _column(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    return table[t].to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


class Diffusion(nn.Module):
    """q(x_t | x_0) = N(sqrt(a_t) x_0, 1 - a_t) with a_t the running product of 1 - beta.

    `prediction` names what the network gives: "eps", "x0" or "v" = sqrt(a) eps - sqrt(1-a) x_0
    (Salimans & Ho 2022). Estimated x_0 are clipped to [-1,1].
    """

    betas: Tensor
    signal: Tensor

    def __init__(self, betas: Tensor, prediction: str) -> None:
        super().__init__()
        self.steps, self.prediction = len(betas), prediction
        # float64 so that a_1000 = 4.0358e-5 is right to the last digit that float32 tensors can use
        self.register_buffer("betas", betas, persistent=False)
        self.register_buffer("signal", (1 - betas).cumprod(0), persistent=False)

    def time_of(self, sigma: Tensor) -> Tensor:
        """The time `[B]`, between steps too, at which sqrt((1-a)/a) is `sigma [B]`; log sigma is interpolated."""
        table = ((1 - self.signal) / self.signal).log() / 2
        wanted = sigma.double().log().clamp(table[0], table[-1])
        right = torch.searchsorted(table, wanted).clamp(1, self.steps - 1)
        left = right - 1
        return left + (wanted - table[left]) / (table[right] - table[left])

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t for `t [B]`."""
        a = _column(self.signal, t, x_0)
        return a.sqrt() * x_0 + (1 - a).sqrt() * noise

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network must predict."""
        if self.prediction == "eps":
            return noise
        if self.prediction == "x0":
            return x_0
        a = _column(self.signal, t, x_0)
        return a.sqrt() * noise - (1 - a).sqrt() * x_0

    def estimate(self, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The x_0 that a prediction implies, clipped to [-1,1]."""
        a = _column(self.signal, t, x_t)
        if self.prediction == "eps":
            x_0 = (x_t - (1 - a).sqrt() * output) / a.sqrt()
        elif self.prediction == "v":
            x_0 = a.sqrt() * x_t - (1 - a).sqrt() * output
        else:
            x_0 = output
        return x_0.clamp(-1, 1)

    def ancestral(self, x_t: Tensor, x_0: Tensor, t: int, noise: Tensor | None, variance: str) -> Tensor:
        """x_{t-1} ~ q(x_{t-1} | x_t, x_0); `variance` "large" = beta_t, "small" = posterior (Ho 2020, eq. 7).

        No noise is added at t = 0.
        """
        a = self.signal[t]
        a_next = self.signal[t - 1] if t > 0 else torch.ones_like(a)
        beta = self.betas[t]
        from_start = a_next.sqrt() * beta / (1 - a)
        from_now = (1 - beta).sqrt() * (1 - a_next) / (1 - a)
        mean = from_start.to(x_t.dtype) * x_0 + from_now.to(x_t.dtype) * x_t
        if t == 0 or noise is None:
            return mean
        spread = beta if variance == "large" else beta * (1 - a_next) / (1 - a)
        return mean + spread.sqrt().to(x_t.dtype) * noise

    def ddim(
        self, x_t: Tensor, x_0: Tensor, t: int, t_next: int | None, noise: Tensor | None, eta: float
    ) -> Tensor:
        """DDIM from t to t_next (None = clean), noise implied by the clipped x_0 (Song 2021, eq. 12)."""
        if t_next is None:
            return x_0
        a, a_next = self.signal[t], self.signal[t_next]
        implied = (x_t - a.sqrt().to(x_t.dtype) * x_0) / (1 - a).sqrt().to(x_t.dtype)
        sigma = eta * ((1 - a_next) / (1 - a)).sqrt() * (1 - a / a_next).sqrt()
        x = a_next.sqrt().to(x_t.dtype) * x_0 + (1 - a_next - sigma**2).sqrt().to(x_t.dtype) * implied
        return x if noise is None else x + sigma.to(x_t.dtype) * noise

    def sample(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        noise: Noise,
        shape: tuple[int, ...],
        *,
        ddim_steps: int | None,
        eta: float,
        variance: str,
    ) -> Tensor:
        """`[B,*shape]` from pure noise; `predict(x_t, t [B])` is the network's answer.

        Ancestral over all T with `variance`, or DDIM over `ddim_steps` times with `eta`.
        """
        x = noise.normal(*shape)
        steps = trailing_steps(self.steps, ddim_steps or self.steps)
        for t, t_next in zip(steps, [*steps[1:], None], strict=True):
            times = torch.full((len(x),), t, device=x.device)
            x_0 = self.estimate(x, predict(x, times).float(), times)
            if ddim_steps is None:
                fresh = noise.normal(*shape) if t > 0 else None
                x = self.ancestral(x, x_0, t, fresh, variance)
            else:
                fresh = noise.normal(*shape) if eta > 0 and t_next is not None else None
                x = self.ddim(x, x_0, t, t_next, fresh, eta)
        return x
