"""Tables of docs/evidence.md about the ranking."""

from __future__ import annotations

from results import read, table


def ranking_headlines() -> str:
    """What was asked of every headline, and how often it did so."""
    headlines, orders = read("ranking")["headlines"], read("ranking")["orders_by_n"]
    questions = list(next(iter(headlines.values())))
    rows = [
        [name, *(f"{100 * of[question]:.0f} %" for question in questions), f"{orders[name]:.2f}"]
        for name, of in headlines.items()
    ]
    return table(["headline", *questions, "tau of the true orders at 16 and 200 samples"], rows)


def ranking_calibration() -> str:
    """P(first) on boards that took no part in choosing its prior."""
    rows = [
        [f"{b['low']:.2f} to {b['high']:.2f}", f"{b['cases']}", f"{b['said']:.3f}", f"{b['was']:.3f}"]
        for b in read("ranking")["calibration"]["fresh"]["bins"]
    ]
    return table(["P(first)", "cases", "mean P(first)", "proportion that were first"], rows)


def ranking_tests() -> str:
    """Boards of five equal generators: how often any two differ in a column."""
    result = read("ranking")["family_wise"]
    columns = [name for name, value in result.items() if isinstance(value, dict)]
    rows = [
        [
            f"`{name}`",
            *(f"{100 * result[name][of]['now']:.1f} %" for of in ("all", "real", "faulty")),
            f"{100 * result[name]['all']['before']:.1f} %",
        ]
        for name in columns
    ]
    return table(["metric", "all", "five real", "five with one fault", "all, without the correction"], rows)
