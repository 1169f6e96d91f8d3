"""What comes from outside: damaged and strange volumes, and hostile names and texts in every field that is shown."""

from __future__ import annotations

import csv
import gzip
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
from fault_bench import blob, write_volumes
from fault_bundles import bundles
from fault_commands import call, start
from fault_trials import (
    OTHER_HEADER,
    Setting,
    Trials,
    different,
    flips,
    full_disks,
    kills,
    little_memory,
    races,
    resumes,
    two_inits,
)

from mribench.bench.folder import open_bench
from mribench.data.folder import open_folder
from mribench.files import read_json, write_json

Spoil = Callable[[Path, np.random.Generator], None]  # changes the file of one volume


def _header(change: Callable[[bytearray, np.random.Generator], None]) -> Spoil:
    def spoil(path: Path, rng: np.random.Generator) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        change(content, rng)
        path.write_bytes(gzip.compress(bytes(content)))

    return spoil


def _put(offset: int, kind: str, *values: float) -> Spoil:
    def change(content: bytearray, rng: np.random.Generator) -> None:
        raw = np.array(values[rng.integers(len(values))], dtype=kind).tobytes()
        content[offset : offset + len(raw)] = raw

    return _header(change)


def _flip_header(content: bytearray, rng: np.random.Generator) -> None:
    content[rng.integers(348)] ^= 1 << int(rng.integers(8))


def _flip_file(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def _cut(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])


def _instead(make: Callable[[Path], None]) -> Spoil:
    def spoil(path: Path, _: np.random.Generator) -> None:
        path.unlink()
        make(path)

    return spoil


def _values(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(path: Path, _: np.random.Generator) -> None:
        image = nib.load(path)
        nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)

    return spoil


VOLUMES: dict[str, Spoil] = {
    "flipped bit of the header": _header(_flip_header),
    "flipped bit of the file": _flip_file,
    "cut": _cut,
    "size of the header": _put(0, "<i4", 0, -1, 540, 2**31 - 1),
    "number of axes": _put(40, "<i2", 0, -1, 4, 7, 32767),
    "length of an axis": _put(42, "<i2", 0, -1, 15, 17, 32767),
    "type of the voxels": _put(70, "<i2", 0, 1, 32, 128, 1792, 9999),
    "bits of a voxel": _put(72, "<i2", 0, 1, 8, 64),
    "voxel size": _put(80, "<f4", 0, -1, np.nan, np.inf, 1e30),
    "place of the voxels": _put(108, "<f4", 0, -352, 1e9, np.nan, 353),
    "slope": _put(112, "<f4", np.nan, np.inf, -1, 1e30),
    "offset of the values": _put(116, "<f4", np.nan, np.inf, -5, 1e30),
    "affine": _put(280, "<f4", np.nan, np.inf, 0, 1e30),
    "magic": _put(344, "<i4", 0, 1),
    "values": _values(lambda data: np.where(data > 0, np.nan, 0).astype(np.float32)),
    "dark": _values(lambda data: data * 0),
    "complex": _values(lambda data: data.astype(np.complex64)),
    "folder": _instead(lambda path: path.mkdir()),
    "pipe": _instead(lambda path: os.mkfifo(path)),
    "endless": _instead(lambda path: path.symlink_to("/dev/zero")),
    "loop of links": _instead(lambda path: path.symlink_to(path)),
    "text": _instead(lambda path: path.write_text("<html>404</html>") and None),
    "bomb": _instead(lambda path: path.write_bytes(gzip.compress(bytes(50_000_000))) and None),
}  # fmt: skip


def bad_volumes(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """One of four volumes is bad: the folder is refused with the name of the file, or read as it was."""
    affine = open_bench(setting.original).protocol.cohort.voxels.affine
    good = write_volumes(setting.room / "good", [blob(40 + i) for i in range(4)], affine)
    wanted = open_folder(good, name="good").digests
    for number in range(total):
        kind = list(VOLUMES)[number % len(VOLUMES)]
        folder, copy = setting.room / "bad-volumes", setting.copy("bad")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        VOLUMES[kind](folder / "v2.nii.gz", np.random.default_rng([seed, 500, number]))
        words = ("evaluate", "--samples", folder, "--name", "new", "--bench", copy.folder, "--device", "cpu")
        end = start(setting.room / "log", *words).wait()
        outcome = _of_volumes(end.code, end.text, folder, wanted, copy.folder, setting)
        if kind == "flipped bit of the header" and outcome.startswith("WRONG voxels"):
            outcome = OTHER_HEADER
        yield kind, outcome
    shutil.rmtree(good)


def _of_volumes(
    code: int, text: str, folder: Path, wanted: tuple[str, ...], bench: Path, setting: Setting
) -> str:
    if code not in (0, 1, 2) or "Traceback" in text:
        return f"TRACEBACK {code} {text[-600:]}"
    if other := different(setting, bench):
        return f"WRONG others {other}"
    if code:
        return "refused" if "v2.nii.gz" in text or "v3.nii.gz" in text else f"SILENT {text[-300:]}"
    same = open_folder(folder, name="bad").digests == wanted
    return "same" if same else f"WRONG voxels {text[-300:]}"


# --- hostile texts

TEXTS = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "</title></script><svg onload=alert(1)>",
    "=HYPERLINK(\"http://x\",\"y\")", "+1+cmd|' /C calc'!A0", "@SUM(1+1)", "-2+3", "\t=1+1",
    "\\input{/etc/passwd} $x_1^2$ & % # ~", "}{\\write18{id}", "\x1b[2J\x1b]0;owned\x07", "a\rb\nc\x00d\x9b31m",
    "{{ 7 * 7 }}{% raw %}", "| a | b |\n|---|", "[x](javascript:alert(1))", "\u202etxt.exe\u200b",
)  # fmt: skip
FIELDS = {
    "title of a run": ("noise", "run.json", "title"),
    "what a control is": ("noise", "run.json", "what"),
    "name of a preset": ("cdpm", "run.json", "preset"),
    "name of an entrant in its scores": ("theirs", "scores.json", "entrant"),
    "name of a device": ("cdpm", "weights.json", "device"),
    "signature of a score": ("cdpm", "scores.json", "signature"),
    "note of a score": ("cdpm", "scores.json", "notes"),
    "reason of a missing score": ("noise", "scores.json", "missing"),
}


def hostile_texts(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """A text in a field that HTML, CSV, TeX and the terminal show: it stays a text in all of them."""
    rng = np.random.default_rng([seed, 600])
    allowed = set(_scripts((setting.original / "report" / "index.html").read_text()))
    rounds = -(-total // len(FIELDS))
    for number in range(rounds):
        copy = setting.copy("hostile")
        texts = [TEXTS[(number + i * 5 + rng.integers(2)) % len(TEXTS)] for i in range(len(FIELDS))]
        for field, text in zip(FIELDS, texts, strict=True):
            _place(copy.folder / "runs", FIELDS[field], text)
        end = call("report", "--bench", copy.folder)
        problem = "" if end.is_clean and end.code == 0 else f"TRACEBACK {end.code} {end.text[-600:]}"
        problem = problem or _shown(copy.folder / "report", end.text, allowed)
        for field in list(FIELDS)[: min(len(FIELDS), total - number * len(FIELDS))]:
            yield field, problem or "same"


def _place(runs: Path, where: tuple[str, str, str], text: str) -> None:
    run, file, key = where
    record = read_json(runs / run / file)
    record.pop("sha256", None)  # changed on purpose
    if key in ("signature", "notes"):
        record["scores"][0][key] = text if key == "signature" else [text]
    elif key == "device":
        record[key]["name"] = text
    elif key == "missing":
        record[key] = [{"metric": "kid_a", "reason": text, "by_design": True}]
    else:
        record[key] = text
    write_json(runs / run / file, record)


class _Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.contents: list[str] = []
        self.handlers: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script"
        self.handlers += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        self.handlers += [f"{tag} {v}" for n, v in attrs if n in ("src", "href") and "script:" in (v or "")]
        if self._inside:
            self.contents.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.contents[-1] += data


def _scripts(page: str) -> list[str]:
    parser = _Scripts()
    parser.feed(page)
    return [*(re.sub(r"\d+", "0", text)[:200] for text in parser.contents), *parser.handlers]


def _shown(report: Path, said: str, allowed: set[str]) -> str:
    """What is wrong with the outputs, or nothing."""
    if new := set(_scripts((report / "index.html").read_text())) - allowed:
        return f"WRONG script {new}"
    for name in ("table.csv", "scores.csv"):
        with open(report / name, newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        for cell in cells:
            if cell.startswith(("=", "@", "\t", "\r", "|")) or (cell[:1] in "+-" and not _is_number(cell)):
                return f"WRONG formula in {name}: {cell!r}"
    tex = (report / "table.tex").read_text()
    if re.search(r"\\(input|write)", tex.replace("\\textbackslash", "")):
        return "WRONG command in table.tex"
    texts = [said, tex, (report / "table.md").read_text(), (report / "table.csv").read_text()]
    if control := [
        c for text in texts for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160
    ]:
        return f"WRONG control characters {set(control)}"
    return ""


def _is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return cell == "-"
    return True


# --- streams and folders


def streams(setting: Setting, seed: int, total: int) -> Iterator[tuple[str, str]]:
    """Closed, full and broken stdout or stderr; no home and no temporary folder."""
    kinds = list(STREAMS)
    for number in range(total):
        kind = kinds[number % len(kinds)]
        copy, words = setting.copy("streams"), ("evaluate", "cdpm", "--overwrite", "--bench")
        end = start(setting.room / "log", *words, copy.folder, before=STREAMS[kind]).wait()
        again = call(*words, copy.folder)
        outcome = (
            "same" if again.code == 0 and not different(setting, copy.folder) else f"LOST {again.text[-300:]}"
        )
        yield kind, outcome if end.is_clean else f"TRACEBACK {end.code} {end.text[-500:]}"


def _onto(descriptor: int, path: str | None) -> Callable[[], None]:
    def change() -> None:
        import sys

        if path is None:
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, descriptor)
        elif path:
            os.dup2(os.open(path, os.O_WRONLY), descriptor)
        else:
            os.close(descriptor)
            setattr(sys, "stdout" if descriptor == 1 else "stderr", None)

    return change


def _without_folders() -> None:
    import tempfile

    os.environ.pop("HOME", None)
    os.environ["TMPDIR"] = "/nowhere"
    tempfile.tempdir = None
    tempfile._get_default_tempdir = _no_folder  # type: ignore[attr-defined]


def _no_folder() -> str:
    raise FileNotFoundError(2, "No usable temporary directory found")


STREAMS: dict[str, Callable[[], None]] = {
    "closed stdout": _onto(1, ""),
    "closed stderr": _onto(2, ""),
    "full stdout": _onto(1, "/dev/full"),
    "full stderr": _onto(2, "/dev/full"),
    "broken stdout": _onto(1, None),
    "broken stderr": _onto(2, None),
    "no home, no temporary folder": _without_folders,
}


TRIALS: dict[str, Trials] = {
    "flips": flips,
    "kills": kills,
    "resumes": resumes,
    "full_disks": full_disks,
    "little_memory": little_memory,
    "bad_volumes": bad_volumes,
    "hostile_texts": hostile_texts,
    "races": races,
    "two_inits": two_inits,
    "streams": streams,
    "bundles": bundles,
}
