"""Tables of docs/anatomy.md."""

from __future__ import annotations

from results import read, table

TESTS = {
    "anatomy": "`anatomy`",
    "regions": "rows",
    "mmd": "`mmd`",
    "kid_a": "`kid_a`",
    "kid_c": "`kid_c`",
    "kid_s": "`kid_s`",
}
KERNELS = {
    "anatomy": "chosen",
    "joint": "together only, power 0.5",
    "joint_power_1": "together only, power 1",
    "alone": "each alone only",
    "bank": "Gaussian bank",
}


def anatomy_power() -> str:
    """Proportion of draws with p <= 0.05, per fault and test."""
    return _power(TESTS)


def anatomy_kernels() -> str:
    """The same for the kernels that the metric could have had."""
    return _power(KERNELS)


def _power(columns: dict[str, str]) -> str:
    rows = [
        [fault, *(f"{found['power'][test]:.2f}" for test in columns)]
        for fault, found in read("anatomy")["power"].items()
    ]
    return table(["fault", *columns.values()], rows)


def anatomy_truth() -> str:
    """Every trait against the simulator's truth, by size."""
    found = read("anatomy")
    sizes = {f"{entry['size']}³": entry["traits"] for entry in found["sizes"]}
    rows = [
        [
            trait,
            *(f"{traits[trait]['r']:.2f}" for traits in sizes.values()),
            f"{values['r']:.2f}",
            f"{values['difference_percent']:+.0f} %",
            f"{values['deviation_ratio']:.2f}",
        ]
        for trait, values in found["truth"].items()
    ]
    header = ["trait", *(f"r at {size}" for size in sizes), "r at 72³", "mean at 72³", "spread at 72³"]
    return table(header, rows)


def anatomy_disturbed() -> str:
    """Mean change of every trait in % by disturbances of the picture, in standard deviations of people in brackets."""
    found = read("anatomy")["disturbed"]
    traits = list(next(iter(found.values()))["percent"])
    rows = [
        [name, *(f"{of['percent'][trait]:+.1f} ({of['deviations'][trait]:+.1f})" for trait in traits)]
        for name, of in found.items()
    ]
    return table(["disturbance", *traits], rows)


def anatomy_head() -> str:
    """Tissues of Colin27 by both segmentations."""
    rows = [
        [tissue, f"{of['ours_ml']:.0f}", f"{of['dipy_ml']:.0f}", f"{of['soft_dice']:.2f}"]
        for tissue, of in read("anatomy")["real_head"]["tissues"].items()
    ]
    return table(["tissue", "mribench, ml", "dipy, ml", "soft Dice"], rows)
