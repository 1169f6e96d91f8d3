"""Tables of docs/gates.md."""

from __future__ import annotations

from results import read, table

GATES = ("copies", "identical", "repeats", "orientation", "joins", "anatomy")


def gate_alarms() -> str:
    """Honest entrants that each gate holds back, by kind and size."""
    sizes = read("gates")["false_alarms"]
    rows = [
        [
            name,
            kind,
            str(of["entrants"] // len(of["alarms"])),
            *(str(alarms.get(g, 0)) for g in (*GATES, "any")),
        ]
        for name, of in sizes.items()
        for kind, alarms in of["alarms"].items()
    ]
    return table(["size", "honest entrant", "draws", *GATES, "any"], rows)


def gate_cheats() -> str:
    """The samples, of 64, that each gate names; bold: it holds the entrant back."""
    rows = [
        [cheat, *(f"**{named[gate]}**" if gate in named else "–" for gate in GATES)]
        for cheat, named in read("gates")["cheats"].items()
    ]
    return table(["entrant", *GATES], rows)


def gate_power() -> str:
    """Proportion of planted copies that are named, and of entrants that are held back."""
    found = read("copies")
    sizes = [found[name]["kinds"] for name in ("power_32", "power_64")]
    rows = [
        [kind, *(f"{of[kind][what]:.2f}" for of in sizes for what in ("found", "held_back"))]
        for kind in sizes[0]
    ]
    return table(["6 of 60 samples", "named, 32³", "held back, 32³", "named, 64³", "held back, 64³"], rows)


def gate_level() -> str:
    """Observed proportions of p values of held-out people."""
    rows = []
    for entry in read("copies")["level"]:
        observed = [f"{value:.2g}" for value in entry["observed"].values()]
        held = f"{entry['entrants_held_back']} of {entry['entrants']}"
        rows.append([str(entry["train"]), str(entry["null"]), f"{entry['draws']:,}", *observed, held])
    nominal = [f"p ≤ {float(p):g}" for p in read("copies")["level"][0]["observed"]]
    return table(
        ["training volumes", "people of the null", "draws", *nominal, "entrants of 64 held back"], rows
    )
