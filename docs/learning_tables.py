"""Tables of docs/learning.md."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from results import TITLES, read, table

BANDS = [f"{low} to {high}" for low, high in ((1, 8), (8, 16), (16, 32), (32, 48), (48, 64))]
SAMPLERS = {
    "schedule": "DDIM on the schedule's times",
    "ddim": "DDIM on Karras's levels",
    "heun": "Heun",
    "dpmpp_2s": "DPM-Solver++ 2S",
    "dpmpp": "DPM-Solver++ 2M",
}


def samplers_kept() -> str:
    """Amplitude kept in each band of frequency with 8, 20 and 50 calls."""
    kept = read("samplers")["kept"]
    rows = [
        [title, calls, *(f"{100 * value:.0f} %" for value in kept[name][calls])]
        for name, title in SAMPLERS.items()
        for calls in ("8", "20", "50")
    ]
    return table(["sampler", "calls", *BANDS], rows)


def learning_recipes() -> str:
    """Recipes of an hour for the same network."""
    rows = [
        [
            row["recipe"],
            f"{row['ms_ssim']:.1f}",
            f"{row['mmd']:.0f}",
            *(f"{row[view]:.0f}" for view in ("fid_a", "fid_c", "fid_s")),
            f"{row['spread']:.2f}",
            f"{row['neighbours']:.2f}",
        ]
        for row in read("recorded")["learning_recipes"]["rows"]
    ]
    header = ["recipe", "MS-SSIM", "MMD x 10³", "FID-A", "FID-C", "FID-S", "spread", "neighbours"]
    return table(header, rows)


def learning_attention() -> str:
    """What attention across slices at larger sizes is worth."""
    rows = [
        [
            row["what"],
            *(f"{row[view]:.0f}" for view in ("fid_a", "fid_c", "fid_s", "mmd")),
            f"{row['neighbours']:.2f}",
            f"{row['cost']:.1f}",
        ]
        for row in read("recorded")["learning_attention"]["rows"]
    ]
    return table(["network", "FID-A", "FID-C", "FID-S", "MMD x 10³", "neighbours", "cost"], rows)


def learning_trials() -> str:
    """Every trial of benchmarks/learning.py, with the controls."""
    trials = read("learning")["trials"]
    rows = [_trial(f"`{name}`", row) for name, row in trials["controls"].items()]
    rows += [_trial(_title(name, row["model"]), row) for name, row in trials.items() if name != "controls"]
    header = ["trial", "volumes", "CPU s", "MS-SSIM", "MMD x 10³", "FID-A", "FID-C", "FID-S", "spread"]
    return table([*header, "neighbours D, H, W", "copies"], rows)


def _title(name: str, model: str) -> str:
    change = name.removeprefix(model).removeprefix("-").replace("-", " ")
    return f"{TITLES[model]}: {change}" if change else f"**{TITLES[model]}: shipped weights**"


def _trial(name: str, row: dict[str, Any]) -> list[str]:
    fids = [f"{row[view]:.0f}" if view in row else "–" for view in ("fid_a", "fid_c", "fid_s")]
    cost = [f"{row[key]:,}" if key in row else "" for key in ("seen", "cpu_seconds")]
    return [
        name,
        *cost,
        f"{100 * row['ms_ssim']:.1f}",
        f"{1000 * row['mmd']:.0f}",
        *fids,
        f"{row['spread']:.2f}",
        " ".join(f"{value:.2f}" for value in row["neighbours"]),
        f"{row.get('copy_rate', 0):.0%}",
    ]


def shipped_models() -> str:
    """Titles of the models whose weights come with the package."""
    record = files("mribench.models") / "weights" / "pretrained.json"
    models = json.loads(record.read_text())["models"]
    return ", ".join(
        f"{TITLES[name]} ({models[name]['seen']:,} volumes)" for name in TITLES if name in models
    )


def learning_demo() -> str:
    """The demo's protocol: models that started from shipped weights, as a demo before had them, and the controls."""
    demo = read("learning")["demo"]
    rows = [
        [
            TITLES.get(name, f"`{name}`"),
            {"pretrained": "shipped weights", "scratch": "scratch"}.get(start, ""),
            f"{100 * scores['ms_ssim']:.1f}",
            f"{1000 * scores['mmd']:.0f}",
            *(f"{scores[view]:.0f}" for view in ("fid_a", "fid_c", "fid_s")),
        ]
        for start in ("pretrained", "scratch", "control")
        for name, scores in demo.get(start, {}).items()
        if "fid_c" in scores
    ]
    return table(["", "start", "MS-SSIM", "MMD x 10³", "FID-A", "FID-C", "FID-S"], rows)
