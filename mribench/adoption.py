"""Samples of another program -> an entrant of a bench, and the control that sends real volumes the same way."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Bench, Run, check_same_run, start_run, versions
from mribench.bench.records import AdoptionRecord, RunRecord
from mribench.data.cohort import Cohort
from mribench.data.foreign.door import check_entry, enter, leave, sides_of, upright
from mribench.data.foreign.hint import likely_sides
from mribench.data.foreign.recipe import LeftOut, Passage, Recipe
from mribench.data.foreign.stored import Slot, read_slot, slots
from mribench.data.grid import Grid
from mribench.data.nifti import NiftiVolume
from mribench.data.volume_set import DARK, Progress
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_file, digest_json
from mribench.runtime import Context, DeviceRecord
from mribench.samples import Source, are_complete, control_origin, write_samples
from mribench.training import Outcome

log = logging.getLogger(__name__)

_TRIED = 3  # volumes that a dry run draws
_COMPARED = 8  # volumes whose mean is compared with that of as many real ones
_MUCH_OUTSIDE, _MUCH_CLIPPED = 0.2, 0.2  # mean proportions of brightness and of voxels that are worth a word
_BRIGHT, _USUAL_SIZE = 0.1, (0.6, 1.6)  # no background; its space compared with that in real volumes
_FEWEST = 2  # volumes of an entrant: metrics compare its volumes with each other
_SHOWN = 10  # refused files in one message


@dataclass(frozen=True)
class Door:
    """Stored files and the recipe for them."""

    files: tuple[Path, ...]
    recipe: Recipe

    def digest(self, progress: Progress) -> str:
        """Identity of the files: names and bytes, in their order."""
        digests = []
        for done, file in enumerate(self.files):
            progress("compare files", done, len(self.files))
            digests.append([file.name, _digest(file)])
        progress("compare files", len(self.files), len(self.files))
        return digest_json(digests)

    def slots(self, but: Sequence[str] = ()) -> Iterator[Slot]:
        """Every volume, apart from files and volumes named in `but`; raises MribenchError at a file without any."""
        for file in self.files:
            if file.name not in but:
                yield from (slot for slot in slots(file, self.recipe) if slot.name not in but)

    def upright(self, slot: Slot, grid: Grid) -> tuple[NiftiVolume, float]:
        """A stored volume in canonical RAS+, and the step between its intensities."""
        stored = read_slot(slot, self.recipe)
        return upright(stored, self.recipe, grid, slot.path), stored.step

    def sample(self, slot: Slot, grid: Grid) -> tuple[np.ndarray, Passage]:
        """A stored volume as a sample of the bench; raises MribenchError where it cannot become one."""
        volume, step = self.upright(slot, grid)
        return enter(volume, self.recipe, grid, slot.name, step, slot.path)


def _digest(file: Path) -> str:
    try:
        return digest_file(file) if file.is_file() else "no regular file"
    except OSError as error:
        return f"unreadable: {error.strerror}"


def examine(
    door: Door, grid: Grid, wanted: int, skip_bad: bool, progress: Progress
) -> tuple[list[Slot], list[LeftOut]]:
    """The first `wanted` usable volumes, all read once, and the files and volumes before them that are not.

    Raises MribenchError that lists what is not usable, unless `skip_bad`; for fewer than two usable volumes, and where
    all of them are dark.
    """
    chosen: list[Slot] = []
    left_out: list[LeftOut] = []
    brightest = 0.0
    for file in door.files:
        progress("check", len(chosen), wanted)
        if len(chosen) == wanted:
            break
        try:
            present = slots(file, door.recipe)
        except MribenchError as error:
            left_out.append(_left_out(file.name, error, file))
            continue
        for slot in present[: wanted - len(chosen)]:
            try:
                volume = door.upright(slot, grid)[0]
                brightest = max(brightest, check_entry(volume, door.recipe, grid, slot.path))
                chosen.append(slot)
            except UsageError:
                raise
            except MribenchError as error:
                left_out.append(_left_out(slot.name, error, file))
    if left_out and not skip_bad:
        raise MribenchError(_refusal(left_out, len(chosen) + len(left_out)))
    if len(chosen) < _FEWEST:
        reasons = "\n".join(["", *listed(left_out)])
        raise MribenchError(
            f"An entrant must have at least {_FEWEST} usable volumes, but there are {len(chosen)}.{reasons}"
        )
    if brightest < DARK:
        raise MribenchError(
            f"The volumes must use the range [0,1], but the largest value of all is {brightest:.3g} after --rescale. "
            "Give the intensities that become 0 and 1 with --rescale LOW HIGH."
        )
    return chosen, left_out


def _left_out(name: str, error: MribenchError, file: Path) -> LeftOut:
    """The reason without the folder's path, which must not travel."""
    return LeftOut(name=name, reason=str(error).replace(f"{file.parent}/", ""))


def _refusal(left_out: Sequence[LeftOut], seen: int) -> str:
    lines = [
        f"Every volume must be usable, but {len(left_out)} of the first {seen} are not:",
        *listed(left_out),
    ]
    remedy = "Repair them, or leave them out with --skip-bad."
    return "\n".join([*lines, *([remedy] if len(left_out) < seen else [])])


def listed(left_out: Sequence[LeftOut]) -> list[str]:
    """A line for each of the first reasons; files with the same one share a line."""
    by_reason: dict[str, list[LeftOut]] = {}
    for each in left_out:
        by_reason.setdefault(each.reason.replace(each.name, ""), []).append(each)
    lines = []
    for alike in list(by_reason.values())[:_SHOWN]:
        more = f"  (and {len(alike) - 1} more like it, up to {alike[-1].name})" if len(alike) > 1 else ""
        lines.append(f"  {alike[0].reason}{more}")
    rest = sum(map(len, list(by_reason.values())[_SHOWN:]))
    return [*lines, *([f"  ... and {rest} more"] if rest else [])]


def adopt(
    bench: Bench,
    name: str,
    door: Door,
    context: Context,
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """Make stored volumes an entrant: the first usable ones, as many as the protocol asks for.

    A killed adoption goes on with the volumes that are missing. Raises UsageError for a name that is taken and for an
    entrant that was adopted from other files or with another recipe, MribenchError as `examine`.
    """
    run, grid = bench.run(name), bench.protocol.cohort.voxels
    check_name(bench, name)
    content = door.digest(context.progress)
    with bench.run_lock(run):
        if overwrite and run.folder.exists():
            shutil.rmtree(run.folder)
        adoption = _present(bench, run, door, content)
        stamp = digest_json([content, door.recipe.model_dump(mode="json"), grid.model_dump(mode="json")])
        if adoption is not None and are_complete(run, stamp, adoption.count):
            return "up to date"
        if adoption is None:
            adoption = _start(bench, run, door, content, skip_bad, context.progress)
        _write(run, door, adoption, stamp, grid, context)
    return "done"


@dataclass(frozen=True)
class Trial:
    """The first volumes as they would become samples, and what to change in the recipe, if anything."""

    volumes: tuple[np.ndarray, ...]
    passages: tuple[Passage, ...]
    advice: str


def try_out(door: Door, chosen: Sequence[Slot], cohort: Cohort) -> Trial:
    """Make the first three volumes and look at them; writes nothing."""
    made = [door.sample(slot, cohort.grid) for slot in chosen[:_TRIED]]
    volumes, passages = zip(*made, strict=True)
    return Trial(volumes, passages, advice(door, volumes, passages, cohort))


def advice(door: Door, volumes: Sequence[np.ndarray], passages: Sequence[Passage], cohort: Cohort) -> str:
    """What a person should change or look at, judged by samples beside reference volumes; "" where nothing is odd."""
    lines = []
    if (outside := float(np.mean([passage.outside for passage in passages]))) > _MUCH_OUTSIDE:
        lines.append(
            f"{outside:.0%} of the brightness lies outside the bench's field of view: is the affine right? See "
            "--assume-affine, and --to-grid register."
        )
    if (clipped := float(np.mean([passage.clipped for passage in passages]))) > _MUCH_CLIPPED:
        lines.append(f"{clipped:.0%} of the voxels were clipped: is --rescale the range of the samples?")
    reference = cohort.set("reference")
    real = reference.subset(range(min(_COMPARED, len(reference)))).stack().mean(axis=0)
    bright = float(np.mean([(volume > _BRIGHT).sum() for volume in volumes])) / float((real > _BRIGHT).sum())
    if not _USUAL_SIZE[0] < bright < _USUAL_SIZE[1]:
        lines.append(
            f"What is bright in the samples fills {bright:.2f} times the space that it fills in real volumes: is the "
            "size of the voxels right (--assume-affine), and is the background 0 after --rescale?"
        )
    slot = next(door.slots())
    axes = door.recipe.axes or sides_of(read_slot(slot, door.recipe))
    sides = "".join(letter for letter in axes if letter not in "NC_")
    if better := likely_sides(volumes, real, sides):
        letters = iter(better[0])
        renamed = "".join(letter if letter in "NC_" else next(letters) for letter in axes)
        lines.append(
            f"As it is taken ({axes}), the mean of the samples correlates with real volumes by {better[2]:.2f}; with "
            f"--orientation {renamed} it would by {better[1]:.2f}. Left and right cannot be told this way."
        )
    return "\n".join(lines)


def advice_on(door: Door, run: Run, cohort: Cohort) -> str:
    """As `advice`, on the first samples of an adopted entrant."""
    volumes = run.samples()
    passages = [file.passage for file in run.read_samples().files if file.passage is not None]
    return advice(door, [volumes[i] for i in range(min(_COMPARED, len(volumes)))], passages, cohort)


def check_name(bench: Bench, name: str) -> None:
    """Raise UsageError for the name of a control, of a run that is no folder of samples, or without a free control."""
    run, control = bench.run(name), bench.door_control(bench.run(name))
    if name in CONTROLS:
        raise UsageError(f"{name} is the name of a control. Give the samples another --name.")
    if run.record.exists() and (kind := run.read_record().kind) != "folder":
        raise UsageError(f"{name} is a run of this bench already ({kind}). Give the samples another --name.")
    if control.record.exists() and control.read_record().door_of != name:
        raise UsageError(
            f"{control.name} must be free for the control of {name}, but it is a run of this bench already. "
            "Give the samples another --name."
        )


def _record(bench: Bench, run: Run, content: str, adoption: AdoptionRecord) -> RunRecord:
    return RunRecord(
        kind="folder",
        title=run.name,
        cohort_digest=content,
        protocol_digest=bench.protocol.digest,
        versions=versions(),
        adoption=adoption,
    )


def _present(bench: Bench, run: Run, door: Door, content: str) -> AdoptionRecord | None:
    """What run.json says, where there is one; raises UsageError when it is of other files or another recipe."""
    if not run.record.exists():
        return None
    check_same_run(run, _record(bench, run, content, AdoptionRecord(recipe=door.recipe, count=0)), "adopt")
    return run.read_record().adoption


def _start(
    bench: Bench, run: Run, door: Door, content: str, skip_bad: bool, progress: Progress
) -> AdoptionRecord:
    """Choose the volumes and write run.json."""
    wanted = bench.protocol.evaluation.samples
    chosen, left_out = examine(door, bench.protocol.cohort.voxels, wanted, skip_bad, progress)
    adoption = AdoptionRecord(recipe=door.recipe, count=len(chosen), left_out=tuple(left_out))
    start_run(run, _record(bench, run, content, adoption), "adopt")
    return adoption


def _write(run: Run, door: Door, adoption: AdoptionRecord, stamp: str, grid: Grid, context: Context) -> None:
    """Make the volumes that are missing, one at a time, because a registration takes seconds."""
    chosen: list[Slot] = []
    for slot in door.slots([each.name for each in adoption.left_out]):
        if len(chosen) == adoption.count:
            break
        chosen.append(slot)
    make, passages = _maker(lambda number: door.sample(chosen[number], grid))
    source = Source(make, stamp, device=DeviceRecord(device="cpu"), passage=passages.__getitem__)
    write_samples(run, source, grid, adoption.count, context, batch=1)


def _maker(
    sample: Callable[[int], tuple[np.ndarray, Passage]],
) -> tuple[Callable[[Sequence[int]], np.ndarray], dict[int, Passage]]:
    """A function that makes the volumes of the given numbers, and where it notes their passages."""
    passages: dict[int, Passage] = {}

    def make(numbers: Sequence[int]) -> np.ndarray:
        volumes = []
        for number in numbers:
            volume, passages[number] = sample(number)
            volumes.append(volume)
        return np.stack(volumes)

    return make, passages


def make_door_control(
    bench: Bench, cohort: Cohort, run: Run, context: Context, *, overwrite: bool = False
) -> Outcome | None:
    """Send held-out volumes through the door of an adopted entrant: stored as its samples are, then adopted alike.

    Volume i takes the inverse of the way of sample i. None without two held-out volumes. Raises MribenchError when the
    entrant is not adopted completely.
    """
    record, samples = run.read_record(), run.read_samples()
    adoption, grid = record.adoption, bench.protocol.cohort.voxels
    passages = [file.passage for file in samples.files if file.passage is not None]
    if adoption is None or len(passages) != adoption.count:
        raise MribenchError(f"{run.name} must be adopted to the end first. Run: {run.command('generate')}")
    holdout, control = cohort.set("holdout"), bench.door_control(run)
    count = min(bench.protocol.evaluation.samples, len(holdout))
    if count < _FEWEST:
        return None
    stamp = digest_json({"door": samples.made_from, "cohort": cohort.digest})

    def sample(number: int) -> tuple[np.ndarray, Passage]:
        passage = passages[number % len(passages)]
        stored = leave(holdout[number], passage, adoption.recipe, grid)
        name = holdout.names[number]
        return enter(stored, adoption.recipe, grid, name, passage.step, Path(name))

    wanted = _door_record(bench, cohort, run, adoption)
    with bench.run_lock(control):
        if control.record.exists() and (overwrite or _is_stale(control, wanted, stamp)):
            shutil.rmtree(control.folder)
        start_run(control, wanted, "generate")
        if are_complete(control, stamp, count):
            return "up to date"
        make, made = _maker(sample)
        origin = control_origin(cohort, control.name)
        source = Source(
            make, stamp, device=DeviceRecord(device="cpu"), passage=made.__getitem__, origin=origin
        )
        write_samples(control, source, grid, count, context, batch=1)
    return "done"


def _is_stale(control: Run, wanted: RunRecord, stamp: str) -> bool:
    """Whether it belongs to samples that have been replaced."""
    if control.read_record().identity != wanted.identity:
        return True
    return control.samples_record.exists() and control.read_samples().made_from != stamp


def _door_record(bench: Bench, cohort: Cohort, run: Run, adoption: AdoptionRecord) -> RunRecord:
    return RunRecord(
        kind="control",
        title=f"Real volumes through the door of {run.name}",
        what=f"Held-out real volumes, stored as {run.name} stores its samples and adopted with the same recipe: what "
        "that way alone costs.",
        door_of=run.name,
        cohort_digest=cohort.digest,
        protocol_digest=bench.protocol.digest,
        versions=versions(),
        adoption=adoption.model_copy(update={"left_out": ()}),
    )
