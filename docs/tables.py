"""Tables and derived figures of the docs: functions that return Markdown, which `figures.py` puts in its places."""

from __future__ import annotations

from typing import Any

from results import read, span, speed, table

# In the order of the cDPM paper's Table 1.
TITLES = {
    "vae_gan": "3D-VAE-GAN",
    "gan_gp": "3D-GAN-GP",
    "alpha_wgan": "3D-alpha-WGAN",
    "cce_gan": "CCE-GAN",
    "ha_gan": "HA-GAN",
    "dpm3d": "3D-DPM",
    "cdpm": "cDPM",
}
CONTROLS = ("real_heldout", "train_copy", "mean_volume", "blurred_real", "noise")
# The cDPM paper's stages: slices that pass the network in each of its 1000 steps, and the step's share of the
# FLOPs of a training step (forward alone, of half the stack).
CDPM_SLICES, CDPM_STEPS, CDPM_SHARE = 248, 1000, 1 / 60
PAPER_SAMPLES = 500


# Metrics


def metrics() -> str:
    """Name, aim, family and limits of every metric, from the metrics themselves."""
    from mribench.metrics import METRICS, get_metric

    rows = []
    for metric in map(get_metric, METRICS):
        for attribute in ("title", "family", "ranked", "better", "detects", "measures", "blind_to"):
            if not hasattr(metric, attribute):
                raise ValueError(
                    f"The metric {metric.name!r} must have {attribute!r} to stand in docs/metrics.md."
                )
        better = {"match": "equal to the reference's"}.get(metric.better, metric.better)
        detects = " ".join(f"`{name}`" for name in metric.detects)
        limits = [str(getattr(metric, name)) for name in ("measures", "blind_to")]
        rows.append(
            [f"`{metric.name}`", better, metric.family, "yes" if metric.ranked else "no", detects, *limits]
        )
    return table(["name", "better", "family", "ranked", "detects", "measures", "does not measure"], rows)


def controls() -> str:
    """Scores of the controls under the demo protocol; bold: told from `real_heldout`; (declared): must be."""

    def cell(row: dict[str, Any], control: str) -> str:
        score = row["controls"][control]
        text = f"{score['value']:.3g}"
        text = f"**{text}**" if score["separated"] else text
        return text + (" (declared)" if control in row["detects"] else "")

    rows = []
    for row in read("controls")["rows"]:
        target = "" if row["target"] is None else f"{row['target']:.3g}"
        rows.append([f"`{row['metric']}`", target, *(cell(row, control) for control in CONTROLS)])
    return table(["metric", "target", *(f"`{control}`" for control in CONTROLS)], rows)


def conventions() -> str:
    """MS-SSIM of one pair of volumes under several conventions."""
    return table(
        ["convention", "score"], [[k, f"{v:.3f}"] for k, v in read("conventions")["conventions"].items()]
    )


def pairs_as_independent() -> str:
    """Standard error of a mean over pairs by the jackknife over that of independent pairs."""
    pairs = read("simulate")["ms_ssim"]
    return f"{pairs['standard_error'] / (pairs['sd_of_pairs'] / pairs['pairs'] ** 0.5):.0f}"


def interval_coverage() -> str:
    """Per cent of nominal 95 % intervals that hold the expected value: lowest to highest cell (trials)."""
    cells = read("coverage")["intervals"]
    sizes = sorted({cell["n"] for cell in cells})
    titles = {"ms_ssim": "MS-SSIM (gap)", "kid_a": "KID", "mmd": "MMD", "fid_a": "FID"}
    rows = []
    for metric in ("ms_ssim", "kid_a", "mmd", "fid_a", "precision", "coverage"):
        row = [titles.get(metric, metric)]
        for n in sizes:
            hits = [c["metrics"][metric] for c in cells if c["n"] == n and metric in c["metrics"]]
            row.append(f"{span([100 * h['now'] for h in hits], '.1f')} ({span([h['trials'] for h in hits])})")
        rows.append(row)
    return table(["", *(f"n = {n}" for n in sizes)], rows)


def real_baseline_errors() -> str:
    """Extrapolated FID baselines against fresh volumes."""
    rows = [
        [
            f"{cell['alpha']:g}",
            str(cell["n"]),
            str(cell["m"]),
            str(cell["trials"]),
            f"{cell['fresh']:.3g}",
            f"{100 * cell['relative_error']['mean']:+.1f} %",
            f"{100 * cell['relative_error']['largest']:.0f} %",
            f"{cell['held_by_interval']:.2g}",
        ]
        for cell in read("coverage")["real_baselines"]
    ]
    header = [
        "exponent",
        "n",
        "M",
        "trials",
        "FID of fresh volumes",
        "mean error",
        "largest error",
    ]
    return table(header, rows)


def fid_of_equal_laws() -> str:
    cells = [c for c in read("coverage")["real_baselines"] if c["n"] == c["m"] == 500]
    return ", ".join(f"{value:.0f}" for value in sorted(c["fresh"] for c in cells))


# The self-test


def selftest() -> str:
    """The smallest dose from which on a metric detects a fault."""
    test = read("selftest")
    doses = {(v["degradation"], v["metric"]): v["notices_from"] for v in test["verdicts"]}
    rows = []
    for fault in test["degradations"]:
        doses_tried = (
            "" if fault["doses"] == [1.0] else ": " + " ".join(f"{dose:g}" for dose in fault["doses"])
        )
        cells = [doses[fault["name"], metric] for metric in test["metrics"]]
        texts = ["–" if dose is None else f"{dose:g}" for dose in cells]
        rows.append([f"{fault['title']} ({fault['unit']}{doses_tried})", *texts])
    return table(["fault (doses)", *(f"`{metric}`" for metric in test["metrics"])], rows)


def planted_copies() -> str:
    rows = [
        [
            kind["kind"],
            "yes" if kind["must_be_found"] else "no",
            f"{kind['found']} of {kind['planted']}",
            f"{kind['largest_ratio']:.2f}",
        ]
        for kind in read("selftest")["planted"]["kinds"]
    ]
    fresh = read("selftest")["planted"]["fresh"]
    rows.append(
        ["fresh volumes", "must not be found", f"{fresh['taken_for_copies']} of {fresh['volumes']}", ""]
    )
    return table(["planted", "must be found", "found", "largest ratio"], rows)


def controls_told() -> str:
    pairs = read("selftest")["controls"]
    return f"{sum(not pair['missed'] for pair in pairs)} of {len(pairs)}"


# Trainings


def demo_trainings() -> str:
    """Seconds of each training of the demo."""
    seconds = read("demo")["training_seconds"]
    return table(["", *TITLES.values()], [["training, s", *(f"{seconds[name]:.0f}" for name in TITLES)]])


def demo_origin() -> str:
    """Where the demo's times come from."""
    demo = read("demo")
    return demo["origin"] if demo["recorded"] else "`benchmarks/demo.py`"


def eight_minutes_clock() -> str:
    models = read("eight_minutes")["models"].values()
    return span([model["training_seconds"] / 60 for model in models]) + " minutes"


def cdpm_trials() -> str:
    """Losses of short trials that chose cDPM's `tiny`."""
    loss = read("recorded")["cdpm_trials"]
    rows = [
        ["base 16, (1,2,4), rate 1e-3", f"{loss['base_16']}", ""],
        ["base 32, (1,1,2,2), rate 1e-3", f"{loss['base_32']}", ""],
        [
            "base 32, (1,1,2,2), rate 2e-3, norm per slice (**chosen**)",
            f"{loss['chosen_200']}",
            f"{loss['chosen_250']}",
        ],
        ["the same, norm over the set, attention also at 16 pixels", "", f"{loss['set_norm_250']}"],
    ]
    return table(["change", "loss after 200", "after 250"], rows)


def _sampled(scores: dict[str, Any], whole: bool) -> list[str]:
    mark = "" if whole else "*"
    value = {name: score["value"] for name, score in scores.items()}
    fids = [f"{value[name]:.0f}" if name in value else "–" for name in ("fid_a", "fid_c", "fid_s")]
    similarity, distance = f"{100 * value['ms_ssim']:.1f}{mark}", f"{1000 * value['mmd']:.1f}{mark}"
    return [similarity, distance, *fids, f"{value['memorisation']:.2f}{mark}"]


def eight_minutes() -> str:
    """Volumes seen, heads and scores of each model after about eight minutes of one thread."""
    trained = read("eight_minutes")
    rows = []
    for name, title in TITLES.items():
        model = trained["models"][name]
        samples = len(model["heads"])
        heads = f"{round(model['share_with_one_head'] * samples)} of {samples}"
        whole = "fid_c" in trained["scores"][name]
        rows.append([title, f"{model['seen']:,}", heads, *_sampled(trained["scores"][name], whole)])
    for name in ("real_heldout", "blurred_real", "mean_volume", "noise"):
        rows.append([f"`{name}`", "", "", *_sampled(trained["scores"][name], True)])
    target = 100 * trained["scores"]["real_heldout"]["ms_ssim"]["target"]
    columns = [f"MS-SSIM (target {target:.1f})", "MMD x 10³", "FID-A", "FID-C", "FID-S", "memorisation AUC"]
    return table(["", "volumes seen", "one head", *columns], rows)


def one_hour() -> str:
    """An hour of cDPM on one core beside the controls."""
    hour = read("cdpm_hour")["scores"]
    names = ("cdpm", "real_heldout", "blurred_real", "mean_volume", "noise")
    rows = []
    for metric, title, factor, form in (
        ("ms_ssim", f"MS-SSIM (target {100 * hour['cdpm']['ms_ssim']['target']:.1f})", 100, ".1f"),
        ("mmd", "MMD x 10³", 1000, ".1f"),
        ("fid_a", "FID-A", 1, ".0f"),
        ("fid_c", "FID-C", 1, ".0f"),
        ("fid_s", "FID-S", 1, ".0f"),
    ):
        cells = []
        for name in names:
            value, low, high = (factor * hour[name][metric][key] for key in ("value", "low", "high"))
            cells.append(f"{value:{form}} [{low:{form}}, {high:{form}}]")
        rows.append([title, *cells])
    return table(["", "cDPM, 1 h", *(f"`{name}`" for name in names[1:])], rows)


def hour_heads() -> str:
    hour = read("cdpm_hour")
    return f"{round(hour['share_with_one_head'] * len(hour['heads']))} of {len(hour['heads'])}"


# Costs


def _training_eflop(name: str) -> float:
    cost = read("costs-paper")["models"][name]
    return cost["budget"] / cost["volumes_per_step"] * cost["training_step_gflop"] / 1e9


def _sample_tflop(name: str) -> float:
    cost = read("costs-paper")["models"][name]
    if name == "cdpm":  # computed: a sample at this size was not run
        return cost["training_step_gflop"] / 1000 * CDPM_SHARE * CDPM_SLICES * CDPM_STEPS
    return cost["sample_gflop"] / 1000


def paper_costs() -> str:
    """Parameters, FLOPs and memory of the `paper` presets, batches of one."""
    rows = []
    for name, title in TITLES.items():
        cost = read("costs-paper")["models"][name]
        peak = cost.get("sample_peak_gib")
        sample = f"{_sample_tflop(name):,.3g}" if peak else f"{_sample_tflop(name):,.0f} (computed)"
        rows.append(
            [
                title,
                f"{sum(cost['parameters'].values()):,}",
                str(cost["volumes_per_step"]),
                f"{cost['training_step_gflop'] / 1000:.3g}",
                f"{cost['training_peak_gib']:.1f} GiB",
                sample,
                f"{peak:.1f} GiB" if peak else "",
            ]
        )
    header = [
        "`paper`, 128³",
        "parameters",
        "volumes a step",
        "TFLOP a step",
        "memory",
        "TFLOP a sample",
        "memory",
    ]
    return table(header, rows)


def table_1_costs() -> str:
    """What training and 500 samples of the `paper` presets cost, computed from the counted FLOPs."""
    rows = []
    for name in TITLES:
        training, samples = _training_eflop(name), _sample_tflop(name) * PAPER_SAMPLES / 1e6
        row = [name, f"{read('costs-paper')['models'][name]['budget']:,}"]
        rows.append(
            [*row, *(f"{figure:.2g}" for figure in (training, training / 0.36, samples, samples / 0.36))]
        )
    header = [
        "`paper` preset",
        "volumes seen",
        "training, EFLOP",
        "hours at 100 TFLOP/s",
        "500 samples, EFLOP",
        "hours",
    ]
    return table(header, rows)


def hours_of_preparing(scans: int = 820) -> str:
    """Of one core, from the CPU seconds of a raw scan."""
    return span(
        [subject["deepbet"]["cpu_seconds"] * scans / 3600 for subject in read("raw")["subjects"]], ".1f"
    )


def hours_of_preparing_the_paper() -> str:
    return hours_of_preparing(1262)


def hours_of_scoring() -> str:
    """MS-SSIM pairs of 500 samples, and their nearest of 1,262 training volumes in two orientations, one core."""
    pairs = PAPER_SAMPLES * (PAPER_SAMPLES - 1) / 2 + 2 * PAPER_SAMPLES * 1262
    return f"{pairs * read('pairs')['brain']['ours_ms']['median'] / 3.6e6:.1f}"


def hours_of_training() -> str:
    return f"{sum(map(_training_eflop, TITLES)) / 0.36:.0f}"


def hours_of_500_samples() -> str:
    return f"{sum(map(_sample_tflop, TITLES)) * PAPER_SAMPLES / 1e6 / 0.36:.0f}"


def hours_of_200_samples() -> str:
    return f"{sum(map(_sample_tflop, TITLES)) * 200 / 1e6 / 0.36:.0f}"


# Speed of the engine


def pair_speed() -> str:
    pairs = read("pairs")
    titles = {
        "brain": "brain pair, cached statistics, 1 thread",
        "dense": "pair of uniform noise, 1 thread",
        "matrix": "all {pairs} pairs of {volumes} volumes with statistics, {threads} threads",
    }
    rows = []
    for name, title in titles.items():
        row = pairs[name]
        ours, theirs, warm = (row[key]["median"] / 1000 for key in ("ours_ms", "theirs_ms", "theirs_warm_ms"))
        ratios = (row["ratio_theirs_median"], row["ratio_theirs_warm_median"])
        cells = [speed(ours), speed(theirs), f"{ratios[0]:.0f}", speed(warm), f"{ratios[1]:.0f}"]
        rows.append([title.format(**row), *cells])
    return table(["", "ours", "pytorch-msssim", "ratio", "with warm memory", "ratio"], rows)


def roofline() -> str:
    return read("pairs")["roofline"]["sentence"]


def pair_agreement() -> str:
    """Largest differences of our scores to other implementations."""
    names = {"float64_oracle": "float64 oracle", "pytorch_msssim": "pytorch-msssim", "monai": "MONAI"}
    agreement = read("pairs")["agreement"]
    rows = [
        [title, *(span([agreement[kind][key]], ".0e") for kind in ("brain", "dense"))]
        for key, title in names.items()
    ]
    return table(["", "brains", "uniform noise"], rows)


def nearest_speed() -> str:
    rows = [
        [
            f"{row['queries']} among {row['candidates']} at {row['side']}³",
            f"{100 * row['share_with_scale_1']:.1f} %",
            f"{row['seconds']:.2f} s",
            f"{row['seconds_without_pruning']:.2f} s",
            "yes" if row["equals_full_matrix"] else "no",
        ]
        for row in read("pairs")["nearest"]
    ]
    return table(["search", "pairs that need scale 1", "search", "full matrix", "same answer"], rows)


def feature_speed() -> str:
    features = read("features")
    inception, effnet = features["inception_2015"], features["effnet_lite0"]
    volume = features["medicalnet_resnet50"]
    whole, resize = inception["resize_and_network"], inception["resize"]
    rate = "{:.2g} images/s".format
    rows = [
        [
            "resize and Inception",
            rate(whole["ours"]["images_per_second"]),
            rate(whole["theirs"]["images_per_second"]) + " (torch-fidelity)",
            f"{whole['ratio_median']:.1f}",
        ],
        [
            "the resize alone",
            speed(resize["ours"]["median_ms"] / 1000),
            speed(resize["theirs"]["median_ms"] / 1000) + " (torch-fidelity)",
            f"{resize['ratio_median']:.1f}",
        ],
        ["resize and effnet-lite0", rate(effnet["resize_and_network"]["images_per_second"]), "", ""],
        [
            "MedicalNet's ResNet-50, a 128³ volume",
            speed(volume["ours"]["median_ms"] / 1000),
            speed(volume["monai"]["median_ms"] / 1000) + " (MONAI, with strides: less work)",
            "",
        ],
    ]
    return table(["", "ours", "peer", "ratio"], rows)


# Raw scans


def raw_turned() -> str:
    """How far a turned head ends from the upright one."""
    rows = [
        [" ".join(f"{angle:g}" for angle in case["degrees"]), f"{case['apart_mm']:.3f}"]
        for case in read("raw")["turned"]
    ]
    return table(["turned by (degrees)", "distance to the upright head, mm"], rows)


def templates() -> str:
    """How templates fit the protocols' field of view."""
    rows = [
        [
            row["volume"],
            f"{row['brain_cm3']}",
            f"{row['outside_per_cent']} %",
            f"{row['clipped_per_cent']:.2f} %",
            f"{row['correlation']:.3f}",
            f"{row['seconds']}",
        ]
        for row in read("recorded")["templates"]
    ]
    header = [
        "at 128³",
        "brain, cm³",
        "outside the field of view",
        "clipped",
        "correlation with MNI152",
        "seconds, 1 thread",
    ]
    return table(header, rows)
