"""Tables of docs/costs.md, internals.md, own-data.md, performance.md and reproducing-table-1.md."""

from __future__ import annotations

from results import TITLES, read, span, speed, table

# The cDPM paper's stages: slices that pass the network in each of its 1000 steps, and the step's share of the
# FLOPs of a training step (forward alone, of half the stack).
CDPM_SLICES, CDPM_STEPS, CDPM_SHARE = 248, 1000, 1 / 60
PAPER_SAMPLES = 500


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
    """Seconds of pairs of MS-SSIM, and the ratio to pytorch-msssim."""
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
    """Seconds of the neighbour search, with and without pruning."""
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
    """Images and volumes a second of every extractor."""
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


# One GPU


def gpu_steps() -> str:
    """Training steps of the `paper` presets by the present code and by the code before, in one call on one GPU."""
    parts = read("gpu")["parts"]
    now = {row["model"]: row for name in ("wasserstein", "steps") for row in parts[name]["rows"]}
    before = {row["model"]: row for row in parts["before"]["rows"]}
    equal = {row["model"]: row["equal"] for row in parts["twice"]["rows"]}
    limit = parts["limits"]["rows"][0]["products_bf16_tflops"]
    rows = [
        [
            title,
            f"{now[name]['batch']}",
            f"{before[name]['seconds']:.3f} s",
            f"{now[name]['seconds']:.3f} s",
            f"{before[name]['seconds'] / now[name]['seconds']:.1f}",
            f"{now[name]['tflops']:.0f}",
            f"{100 * now[name]['tflops'] / limit:.1f} %",
            f"{now[name]['peak_gib']:.1f} GiB",
            "yes" if equal[name] else "no",
        ]
        for name, title in TITLES.items()
    ]
    header = [
        "`paper`, bf16",
        "batch",
        "before",
        "now",
        "ratio",
        "TFLOP/s",
        "of the limit",
        "memory",
        "twice equal",
    ]
    return table(header, rows)


def gpu_layouts() -> str:
    """What layout and choice of kernels change."""
    parts = read("gpu")["parts"]
    now = {row["model"]: row for name in ("wasserstein", "steps") for row in parts[name]["rows"]}
    rows = [
        [TITLES[row["model"]], row["how"], f"{row['seconds']:.3f} s", f"{now[row['model']]['seconds']:.3f} s"]
        for row in parts["variants"]["rows"]
    ]
    return table(["model", "change", "step", "step without it"], rows)
