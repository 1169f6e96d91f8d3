"""The fault matrix: one function a kind of fault; each trial is a seed, and its outcome a word."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from fault_bench import Copy, results
from fault_commands import HUNG, Ended, call, file_limit, killed_after, memory_limit, start

from mribench import training

# Without memory a library may abort the process, and Python 3.11 may repeat one instruction for ever (it needs memory
# for the number of the line that failed): neither can be promised away, and the next command must still finish.
ABORTED, HUNG_WORD = "aborted by a library", "hung in Python without memory"
# A header that a flipped bit turns into another valid one is read as it says: NIfTI has no checksum of it.
OTHER_HEADER = "read as the changed header says"
GOOD = ("same", "refused", "healed", ABORTED, HUNG_WORD, OTHER_HEADER)


@dataclass
class Setting:
    """The original bench, its results, and room for copies."""

    original: Path
    room: Path
    expected: dict[str, Any]
    copies: dict[str, Copy] = field(default_factory=dict)
    prepared: Setting | None = None  # of a bench with prepared volumes

    def copy(self, name: str, *without: str) -> Copy:
        """A copy that lacks the files of some patterns; made once, put back before each trial."""
        if name not in self.copies:
            source = self.room / f"{name}-original"
            shutil.copytree(self.original, source)
            for pattern in without:
                for path in source.glob(pattern):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.copies[name] = Copy(source, self.room / name)
        self.copies[name].restore()
        return self.copies[name]


def judged(end: Ended, setting: Setting, bench: Path) -> str:
    """ "same", "refused" with a sentence, or what went wrong: a traceback, or other results without a word."""
    if not end.is_clean:
        return f"TRACEBACK {end.code} {end.text[-600:]}"
    if end.code:
        return "refused" if "Error: " in end.text else f"SILENT {end.text[-300:]}"
    other = different(setting, bench)
    return f"WRONG {other} {end.text[-300:]}" if other else "same"


def different(setting: Setting, bench: Path) -> list[str]:
    """Results that differ from the original's; what is absent differs too."""
    now = results(bench)
    return [name for name, value in setting.expected.items() if now.get(name) != value][:5]


# --- flipped bits: pattern of the file -> (trials in 1,000, the command that believes it, files to remove first)

Flip = tuple[int, tuple[str, ...], tuple[str, ...]]
ARRAYS = ("arrays/*",)
FLIPS: dict[str, Flip] = {
    "bench.json": (40, ("evaluate", "--all"), ()),
    "cohort/volumes.json": (60, ("evaluate", "--all", "--overwrite"), ()),
    "cohort/volumes/*.npy": (80, ("evaluate", "noise", "--overwrite"), ARRAYS),
    "cohort/ledger.jsonl": (50, ("init",), ("cohort/volumes.json",)),
    "runs/cdpm/run.json": (50, ("train", "cdpm"), ()),
    "runs/cdpm/training.jsonl": (30, (), ()),
    "runs/cdpm/checkpoint/state.pt": (100, ("train", "cdpm"), ("runs/cdpm/weights.*",)),
    "runs/cdpm/weights.json": (40, ("train", "cdpm"), ()),
    "runs/cdpm/weights.safetensors": (70, ("train", "cdpm"), ()),
    "runs/*/samples/*.nii.gz": (80, ("evaluate", "--all", "--overwrite"), ARRAYS),
    "runs/*/samples.json": (60, ("evaluate", "--all", "--overwrite"), ()),
    "runs/*/scores.json": (80, ("evaluate", "--all"), ()),
    "runs/*/nearest.json": (40, ("evaluate", "--all"), ()),
    "arrays/*.npy": (160, ("evaluate", "--all", "--overwrite"), ()),
    "embedding/*": (30, (), ()),
    "report/*": (30, (), ()),
}  # fmt: skip


def flips(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """Flip one bit; `verify` must say so, and the command that reads the file give the same results or refuse."""
    for number, (pattern, (per_thousand, words, without)) in enumerate(FLIPS.items()):
        rng = np.random.default_rng([seed, number])
        for trial in range(max(1, round(per_thousand * total / 1000))):
            name = f"flip{number}" if without else "flip"
            copy = setting.copy(
                name, *[w for w in without if w != "arrays/*"], *[w for w in without if w == "arrays/*"]
            )
            path = _flipped(copy, pattern, rng)
            yield pattern, _flip_outcome(setting, copy, path, words, repair=trial % 5 == 0 and not without)


def _flipped(copy: Copy, pattern: str, rng: np.random.Generator) -> Path:
    files = sorted(path for path in copy.folder.glob(pattern) if path.is_file())
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    return path


def _flip_outcome(setting: Setting, copy: Copy, path: Path, words: tuple[str, ...], repair: bool) -> str:
    said = call("verify", "--bench", copy.folder)
    if not said.is_clean:
        return f"TRACEBACK {said.text[-600:]}"
    if said.code == 0 and not _is_harmless(setting, copy, path):
        return f"UNNOTICED by verify {path.name}"
    outcome = judged(call(*words, "--bench", copy.folder), setting, copy.folder) if words else "same"
    if repair and outcome in ("same", "refused") and said.code and (copy.folder / "bench.json").exists():
        outcome = _after_repair(setting, copy, outcome)
    return outcome


def _is_harmless(setting: Setting, copy: Copy, path: Path) -> bool:
    """Whether a text file says the same as before: a line break that became a space, say."""
    before = copy.original / path.relative_to(copy.folder)
    try:
        if path.suffix == ".json":
            return json.loads(path.read_text()) == json.loads(before.read_text())
    except ValueError:
        return False
    return False


def _after_repair(setting: Setting, copy: Copy, outcome: str) -> str:
    """`verify --repair` must end clean; where it says that all is well, results must be the original's."""
    end = call("verify", "--repair", "--device", "cpu", "--bench", copy.folder)
    if not end.is_clean:
        return f"TRACEBACK in repair {end.text[-600:]}"
    if end.code == 0:
        other = different(setting, copy.folder)
        return f"WRONG after repair {other}" if other else "healed"
    return outcome


# --- kills: name -> (files that the bench lacks at the start, the command)

SAMPLES = ("runs/*/samples", "runs/*/samples.json")
SCORES = ("runs/*/scores.json", "runs/*/nearest.json")
RESULTS = ("report", "embedding")
INIT = ("init", "--protocol", "PROTOCOL")
FOLDER = ("evaluate", "--samples", "THEIRS", "--name", "theirs")


@dataclass(frozen=True)
class Work:
    """A command, what its bench lacks before it, and which results it makes."""

    words: tuple[str, ...]
    without: tuple[str, ...]
    makes: tuple[str, ...]


WORKS = {
    "init": Work(INIT, ("bench.json", "cohort", "runs", "arrays", *RESULTS), ("cohort/",)),
    "train": Work(
        ("train", "cdpm"), ("runs/cdpm", "arrays", *RESULTS), ("runs/cdpm/weights", "runs/cdpm/run.json")
    ),
    "generate": Work(("generate", "cdpm"), ("runs/cdpm/s*", *SCORES, *RESULTS), ("runs/cdpm/samples",)),
    "evaluate": Work(("evaluate", "--all"), (*SCORES, "arrays", *RESULTS), ("runs/",)),
    "prepare": Work(("prepare", "SCANS", "--protocol", "OWN"), ("bench.json", "cohort"), ("cohort/",)),
    "folder": Work(FOLDER, ("runs/theirs", *RESULTS), ("runs/theirs",)),
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def of_work(setting: Setting, name: str) -> Setting:
    """The setting in which a work is tried."""
    return setting.prepared or setting if name == "prepare" else setting


def _words(setting: Setting, work: Work, bench: Path) -> list[object]:
    names = {"PROTOCOL": "faults.toml", "THEIRS": "theirs", "SCANS": "scans", "OWN": "own.toml"}
    paths = {word: setting.original.parent / name for word, name in names.items()}
    return [*[paths.get(word, word) for word in work.words], "--bench", bench]


def finished(setting: Setting, work: Work, bench: Path, log: Path) -> str:
    """The same command again, undisturbed, must succeed and give the original's results."""
    end = start(log, *_words(setting, work, bench)).wait()
    if end.code or not end.is_clean:
        return f"LOST {end.code} {end.text[-500:]}"
    now = results(bench)
    expected = {k: v for k, v in setting.expected.items() if k.startswith(work.makes)}
    other = [name for name, value in expected.items() if now.get(name) != value]
    return f"WRONG {other}" if other else "same"


def kills(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """Send a signal at a random moment; then the same command must finish with the same results."""
    for number, name in enumerate(WORKS):
        rng = np.random.default_rng([seed, 100 + number])
        yield from _killed(of_work(setting, name), name, rng, max(1, total // len(WORKS)))


def resumes(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """As `kills`, of a training that writes a checkpoint after every step and therefore goes on from one."""
    options = training.training_steps.__kwdefaults__
    usual = options["checkpoint_seconds"]
    options["checkpoint_seconds"] = -1.0
    try:
        yield from _killed(setting, "train", np.random.default_rng([seed, 150]), total)
    finally:
        options["checkpoint_seconds"] = usual


def _killed(setting: Setting, name: str, rng: np.random.Generator, total: int) -> Iterator[tuple[str, str]]:
    work, log = WORKS[name], setting.room / "log"
    seconds = _seconds(setting, name, work)
    for _ in range(total):
        copy, kind = setting.copy(f"kill-{name}", *work.without), SIGNALS[rng.integers(4)]
        end = killed_after(rng.uniform(0, seconds), log, kind, *_words(setting, work, copy.folder))
        resumed = (copy.folder / "runs/cdpm/checkpoint/state.pt").exists() and name == "train"
        outcome = finished(setting, work, copy.folder, log)
        if kind != signal.SIGKILL and "Traceback" in end.text:
            outcome = f"TRACEBACK {end.text[-600:]}"
        yield f"{name} {signal.Signals(kind).name}{' with a checkpoint' if resumed else ''}", outcome


def _seconds(setting: Setting, name: str, work: Work) -> float:
    copy, begun = setting.copy(f"kill-{name}", *work.without), time.monotonic()
    end = start(setting.room / "log", *_words(setting, work, copy.folder)).wait()
    assert end.code == 0, end.text
    return time.monotonic() - begun


# --- full disks


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of that many bytes in `folder`, where this user may mount one; yields whether it did."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = os.getuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def full_disks(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """Run a command on a disk with little room (or with a limit of file sizes); then again with room."""
    rng, log, main = np.random.default_rng([seed, 200]), setting.room / "log", setting
    with small_disk(main.room / "disk", 64_000_000) as mounted:
        for number in range(total):
            name = list(WORKS)[number % len(WORKS)]
            setting = of_work(main, name)
            work, source = WORKS[name], setting.copy(f"kill-{name}", *WORKS[name].without)
            left = int(10 ** rng.uniform(2, 5.7))
            if mounted:
                bench = main.room / "disk" / "bench"
                shutil.rmtree(bench, ignore_errors=True)
                shutil.copytree(source.folder, bench)
                ballast = _fill(bench.parent, left)
                end = start(log, *_words(setting, work, bench)).wait()
                ballast.unlink()
            else:
                bench = source.folder
                end = start(log, *_words(setting, work, bench), before=file_limit(left)).wait()
            outcome = finished(setting, work, bench, log)
            if not end.is_clean:
                outcome = f"TRACEBACK {end.code} {end.text[-600:]}"
            kind = "small file system" if mounted else "limit of file sizes"
            yield f"{name}, {kind}, {'refused' if end.code else 'fitted'}", outcome


def _fill(folder: Path, left: int) -> Path:
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    with open(ballast, "wb") as file, suppress(OSError):
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - max(left, 4096) // 4096 * 4096)))
    return ballast


# --- little memory


def little_memory(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """Run a command that may take only that much more address space; then again without a limit."""
    rng, log, main = np.random.default_rng([seed, 300]), setting.room / "log", setting
    for number in range(total):
        name = list(WORKS)[number % len(WORKS)]
        setting = of_work(main, name)
        work, copy = WORKS[name], setting.copy(f"kill-{name}", *WORKS[name].without)
        limit = memory_limit(int(10 ** rng.uniform(0, 2.3)))
        end = start(log, *_words(setting, work, copy.folder), before=limit).wait(seconds=40)
        outcome = finished(setting, work, copy.folder, log)
        if (end.code < 0 or end.text.rstrip().endswith("ABORT")) and outcome == "same":
            outcome = HUNG_WORD if end.code == HUNG else ABORTED
        elif not end.is_clean:
            outcome = f"TRACEBACK {end.code} {end.text[-600:]}"
        yield f"{name}, {'stopped' if end.code else 'fitted'}", outcome


# --- races

RACERS: dict[str, tuple[str, ...]] = {
    "init": INIT,
    "train": ("train", "cdpm"),
    "train anew": ("train", "cdpm", "--overwrite"),
    "generate": ("generate", "cdpm"),
    "generate anew": ("generate", "cdpm", "--overwrite"),
    "evaluate": ("evaluate", "--all"),
    "evaluate anew": ("evaluate", "--all", "--overwrite"),
    "folder anew": (*FOLDER, "--overwrite"),
    "verify": ("verify",),
}


def races(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """Start two commands at once; both end cleanly, and the bench can then be completed with the same results."""
    pairs = list(combinations_with_replacement(RACERS, 2))
    order = np.random.default_rng([seed, 400]).permutation(len(pairs))
    for index in order[:total]:
        first, second = pairs[index]
        copy = setting.copy("race")
        ends = [
            process.wait()
            for process in [
                start(setting.room / f"log{i}", *_words(setting, Work(RACERS[name], (), ()), copy.folder))
                for i, name in enumerate((first, second))
            ]
        ]
        bad = [end.text[-500:] for end in ends if not end.is_clean]
        yield f"{first} and {second}", f"TRACEBACK {bad}" if bad else _completed(setting, copy)


def _completed(setting: Setting, copy: Copy) -> str:
    theirs = setting.original.parent / "theirs"
    for words in (
        ("train", "cdpm"),
        ("generate", "cdpm"),
        ("evaluate", "--samples", theirs, "--name", "theirs"),
        ("evaluate", "--all"),
    ):
        end = call(*words, "--bench", copy.folder)
        if end.code:
            return f"LOST {words}: {end.text[-500:]}"
    other = different(setting, copy.folder)
    return f"WRONG {other}" if other else "same"


def two_inits(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """Two `init` with different protocols: exactly one succeeds, and the bench is of its protocol."""
    protocols = [setting.room / f"init{i}.toml" for i in range(2)]
    text = (setting.original.parent / "faults.toml").read_text()
    for number, path in enumerate(protocols):
        path.write_text(text.replace("seed = 7", f"seed = {8 + number}"))
    for number in range(total):
        bench = setting.room / f"init-{seed}-{number}"
        started = [
            start(setting.room / f"log{i}", "init", "--protocol", path, "--bench", bench)
            for i, path in enumerate(protocols)
        ]
        ends = [process.wait() for process in started]
        winners = [i for i, end in enumerate(ends) if end.code == 0]
        outcome = "same"
        if not all(end.is_clean for end in ends):
            outcome = f"TRACEBACK {[end.text[-300:] for end in ends]}"
        elif len(winners) != 1:
            outcome = f"WRONG {len(winners)} succeeded {[end.text[-300:] for end in ends]}"
        elif json.loads((bench / "bench.json").read_text())["protocol"]["seed"] != 8 + winners[0]:
            outcome = "WRONG protocol"
        shutil.rmtree(bench)
        yield "two inits", outcome


Trials = Callable[[Setting, int, int], Iterator[tuple[str, str]]]


def counted(trials: Iterator[tuple[str, str]]) -> tuple[dict[str, Counter[str]], list[str]]:
    """Outcomes by what was tried, and a line for each that is not as promised."""
    counts: dict[str, Counter[str]] = {}
    bad = []
    for what, outcome in trials:
        word = outcome if outcome in GOOD else outcome.partition(" ")[0]
        counts.setdefault(what, Counter())[word] += 1
        if outcome not in GOOD:
            bad.append(f"{what}: {outcome}")
    return counts, bad
