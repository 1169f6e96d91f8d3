"""Discrete-time Gaussian diffusion: schedule, targets, and the two reverse steps (ancestral, DDIM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear_betas(steps: int) -> Tensor:
    """`[T]` float64 betas, 1e-4 to 0.02 at T = 1000, scaled so that other T reach the same noise (Ho 2020)."""
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)


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
