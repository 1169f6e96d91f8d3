"""Faults of `mribench adopt`: kills, full disks, and one bad file among four."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fault_inputs
import numpy as np
from fault_bench import blob, results, write_volumes
from fault_commands import file_limit, killed_after, start
from fault_inputs import VOLUMES
from fault_trials import OTHER_HEADER, SIGNALS, Setting, Trials, different

ADOPT = ("--name", "strange", "--orientation", "RAS", "--assume-affine", "bench")


def adoptions(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """By turns: a signal at a random moment, a limit of file sizes as on a full disk, a bad file."""
    folder, copy = setting.room / "strange", setting.copy("adopt")
    write_volumes(folder, [blob(60 + i) for i in range(4)], np.eye(4))
    begun = time.monotonic()
    end = start(setting.room / "log", *_words(folder, copy.folder)).wait()
    assert end.code == 0, end.text
    seconds, wanted = time.monotonic() - begun, _adopted(copy.folder)
    for number in range(total):
        rng = np.random.default_rng([seed, 700, number])
        trial = (_killed, _without_room, _with_bad_file)[number % 3]
        yield trial(setting, folder, rng, seconds, wanted)
    shutil.rmtree(folder)


def _words(folder: Path, bench: Path) -> tuple[object, ...]:
    return ("adopt", folder, *ADOPT, "--bench", bench)


def _adopted(bench: Path) -> dict[str, Any]:
    """What an adoption makes: samples and records of the entrant and its control."""
    return {name: value for name, value in results(bench).items() if name.startswith("runs/strange")}


def _finished(setting: Setting, folder: Path, bench: Path, wanted: dict[str, Any]) -> str:
    """The same command again must give what it gives undisturbed, and touch nothing else."""
    end = start(setting.room / "log", *_words(folder, bench)).wait()
    if end.code or not end.is_clean:
        return f"LOST {end.code} {end.text[-500:]}"
    other = different(setting, bench)
    now = _adopted(bench)
    other += [name for name, value in wanted.items() if now.get(name) != value]
    return f"WRONG {other}" if other else "same"


def _killed(
    setting: Setting, folder: Path, rng: np.random.Generator, seconds: float, wanted: dict[str, Any]
) -> tuple[str, str]:
    copy, number = setting.copy("adopt"), SIGNALS[rng.integers(4)]
    end = killed_after(rng.uniform(0, seconds), setting.room / "log", number, *_words(folder, copy.folder))
    outcome = _finished(setting, folder, copy.folder, wanted)
    if number != signal.SIGKILL and "Traceback" in end.text:
        outcome = f"TRACEBACK {end.text[-600:]}"
    return f"killed by {signal.Signals(number).name}", outcome


def _without_room(
    setting: Setting, folder: Path, rng: np.random.Generator, seconds: float, wanted: dict[str, Any]
) -> tuple[str, str]:
    copy, left = setting.copy("adopt"), int(10 ** rng.uniform(2, 5))
    end = start(setting.room / "log", *_words(folder, copy.folder), before=file_limit(left)).wait()
    if not end.is_clean:
        return "limit of file sizes", f"TRACEBACK {end.code} {end.text[-600:]}"
    return "limit of file sizes", _finished(setting, folder, copy.folder, wanted)


def _with_bad_file(
    setting: Setting, folder: Path, rng: np.random.Generator, seconds: float, wanted: dict[str, Any]
) -> tuple[str, str]:
    copy, bad = setting.copy("adopt"), setting.room / "strange-bad"
    kind = list(VOLUMES)[rng.integers(len(VOLUMES))]
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(folder, bad)
    VOLUMES[kind](bad / "v2.nii.gz", rng)
    end = start(setting.room / "log", *_words(bad, copy.folder)).wait()
    if not end.is_clean:
        return f"bad file: {kind}", f"TRACEBACK {end.code} {end.text[-600:]}"
    if other := different(setting, copy.folder):
        return f"bad file: {kind}", f"WRONG others {other}"
    if end.code:
        named = "v2.nii.gz" in end.text and not _adopted(copy.folder)
        return f"bad file: {kind}", "refused" if named else f"SILENT {end.text[-300:]}"
    samples = {name: digest for name, digest in wanted.items() if "/samples/" in name}
    now = _adopted(copy.folder)
    changed = [name for name, digest in samples.items() if now.get(name) != digest]
    if changed and kind == "flipped bit of the header":
        return f"bad file: {kind}", OTHER_HEADER
    return f"bad file: {kind}", f"WRONG voxels {changed}" if changed else "same"


TRIALS: dict[str, Trials] = {**fault_inputs.TRIALS, "adoptions": adoptions}
