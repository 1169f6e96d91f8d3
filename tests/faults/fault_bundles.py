"""Flipped bits of a bundle, which must be refused with a sentence that names the file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from fault_bench import must
from fault_commands import call
from fault_trials import Setting


def bundles(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """Flip one bit of the file that `export` wrote: anywhere, or in the zip around its members; then compare."""
    whole, damaged = setting.room / "whole.zip", setting.room / "damaged.zip"
    must("export", "--bench", setting.original, "--out", whole)
    content = whole.read_bytes()
    frame = _frame(content)
    rng = np.random.default_rng([seed, 700])
    for trial in range(total):
        flipped = bytearray(content)
        place = int(frame[rng.integers(len(frame))] if trial % 2 else rng.integers(len(content)))
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(flipped)
        end = call("compare", whole, damaged, "--out", setting.room / "comparison.html")
        refused = end.is_clean and end.code == 1 and "damaged.zip" in end.text
        yield (
            ("frame" if trial % 2 else "anywhere"),
            "refused" if refused else f"UNNOTICED {place} {end.text[-300:]}",
        )


def _frame(content: bytes) -> list[int]:
    """Places of the headers before the members, and of the directory after them."""
    places, start = [], content.find(b"PK\3\4")
    while start >= 0:
        places += range(start, start + 40)
        start = content.find(b"PK\3\4", start + 1)
    return [*places, *range(content.index(b"PK\1\2"), len(content))]
