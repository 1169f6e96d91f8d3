"""Tables of docs/metrics.md, evidence.md and trainings.md."""

from __future__ import annotations

from typing import Any

from results import TITLES, read, span, table

CONTROLS = ("real_heldout", "train_copy", "mean_volume", "blurred_real", "noise")


# Metrics


BETTER = {"match": "nearest to its target"}
FACTS = ("name", "title", "family", "ranked", "better", "detects", "measures", "blind_to")


def metrics() -> str:
    """What every metric declares about itself: aim, family, rank and controls, then what it measures and what not."""
    from mribench.metrics import METRICS, get_metric

    facts, limits = [], []
    for metric in map(get_metric, METRICS):
        if lacking := [name for name in FACTS if not hasattr(metric, name)]:
            raise ValueError(f"the metric {metric.name!r} must have {', '.join(lacking)}")
        ranked = "yes" if metric.ranked else "no, opt-in" if getattr(metric, "opt_in", False) else "no"
        detects = " ".join(f"`{control}`" for control in metric.detects)
        better = BETTER.get(metric.better, metric.better)
        facts.append([f"`{metric.name}`", metric.title, better, metric.family, ranked, detects])
        limits.append([f"`{metric.name}`", metric.measures, metric.blind_to])
    header = ["name", "title", "better", "family", "ranked", "must detect"]
    return table(header, facts) + table(["name", "measures", "cannot show"], limits).lstrip("\n")


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


def slice_positions_count() -> str:
    """z of every entrant by number of positions, and by slice consistency."""
    found = read("slice-positions")
    choices = list(found["choices"])
    header = [f"{metric}, {choice}" for metric in ("FID", "MMD") for choice in choices]
    rows = []
    for name, of in found["entrants"].items():
        fid = [_largest_z(of, "averaged", choice) for choice in choices]
        mmd = [of["mmd"][choice]["z"] for choice in choices]
        cells = [*fid, *mmd, of["slice_consistency"]["all"]["z"]]
        rows.append([name, *(f"{z + 0:.1f}" for z in cells)])
    return table(["entrant", *header, "`slice_consistency`"], rows)


def slice_positions_ways() -> str:
    """z of every entrant by FID of three positions, then the value of a perfect entrant and its standard error."""
    found, ways = read("slice-positions"), ("averaged", "joined", "pooled")
    rows = [
        [name, *(f"{_largest_z(of, way, '3'):.1f}" for way in ways)] for name, of in found["entrants"].items()
    ]
    cells = [[found["perfect"]["3"][f"fid_{view} {way}"] for view in "acs"] for way in ways]
    rows.append(["FID of a perfect entrant", *(f"{sum(c['value'] for c in of) / 3:.1f}" for of in cells)])
    errors = [100 * sum(c["sd"] / c["value"] for c in of) / 3 for of in cells]
    rows.append(["its standard error, %", *(f"{error:.1f}" for error in errors)])
    return table(["entrant", *ways], rows)


def _largest_z(entrant: dict[str, Any], way: str, choice: str) -> float:
    return max(float(entrant[f"fid_{view} {way}"][choice]["z"]) for view in "acs")


def seam_alarms() -> str:
    """Slice consistency over many draws: quantiles, and how often it lies beyond what faultless samples score."""
    rows = [
        [name, f"{of['median']:.2f}", f"{of['low']:.2f} to {of['high']:.2f}", f"{100 * of['beyond']:.1f} %"]
        for name, of in read("seam-alarms")["entrants"].items()
    ]
    return table(["entrant", "median", "1 % to 99 %", "alarms"], rows)


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
    """How many of the planted copies the ratio test finds."""
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
    return [f"{100 * value['ms_ssim']:.1f}{mark}", f"{1000 * value['mmd']:.1f}{mark}", *fids]


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
    columns = [f"MS-SSIM (target {target:.1f})", "MMD x 10³", "FID-A", "FID-C", "FID-S"]
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
