import base64
import io

import numpy as np
import pytest
from PIL import Image

from mribench.data.grid import paper_grid
from mribench.errors import MribenchError
from mribench.reports import leaderboard
from mribench.reports.page import viewer
from mribench.reports.records import read_cohort, read_entrants


@pytest.fixture
def shown(shared_bench):
    bench = shared_bench.bench
    cohort, _ = read_cohort(bench)
    board = leaderboard.from_bench(bench, cohort, read_entrants(bench, cohort))
    made, reason = viewer.make_viewer(bench, cohort, board.rows)
    assert not reason
    return made, cohort


def test_two_volumes_of_reference_and_models_and_one_of_each_control(shown):
    made, _ = shown
    names = [sprite.label.rpartition(", ")[0] for sprite in made.sprites]
    assert names[:2] == ["Reference"] * 2
    assert {name: names.count(name) for name in ("cDPM", "HA-GAN", "3D-DPM", "Uniform noise (noise)")} == {
        "cDPM": 2, "HA-GAN": 2, "3D-DPM": 2, "Uniform noise (noise)": 1,
    }  # fmt: skip


def test_mosaic_holds_the_sagittal_slices_in_order():
    volume = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    picture = viewer._mosaic(volume)
    columns = picture.shape[1] // 5
    for i in range(7):
        down, across = divmod(i, columns)
        tile = picture[3 * down : 3 * (down + 1), 5 * across : 5 * (across + 1)]
        np.testing.assert_array_equal(tile, np.round(volume[::-1, :, i] * 255))


def test_sprites_are_cubes_of_the_volume(shown):
    made, cohort = shown
    _, y, z = made.sides
    first = cohort.set("reference")[0]  # voxels of 11 x 11 x 8 mm
    assert (made.side_mm, made.sides) == (2.0, (88, 88, 64))
    form, _, content = made.sprites[0].uri.partition(";base64,")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"))
    assert form == "data:image/webp" and picture.shape[0] % z == 0 and picture.shape[1] % y == 0
    columns = picture.shape[1] // y
    down, across = divmod(44, columns)
    slice_44 = picture[z * down : z * (down + 1), y * across : y * (across + 1)]
    assert slice_44[z - 1 - 33, 45] == round(255 * first[33 // 4, int(45 / 5.5), 44 // 5])
    assert len(made.sprites[0].uri) < 200_000


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_coordinates_are_those_of_the_grid(size):
    grid = paper_grid(size)
    side = 1.375 if size == 128 else 2.0
    affine = np.array(viewer._affine(grid, side))
    first = affine @ [1, 1, 1, 1]  # brainsprite counts from one
    corner = np.array(grid.origin_mm) - np.array(grid.spacing_mm) / 2
    np.testing.assert_allclose(first[:3], corner + side / 2)
    far = affine @ [*(round(size * s / side) for s in grid.spacing_mm), 1]
    np.testing.assert_allclose(far[:3], corner + np.array(grid.spacing_mm) * size - side / 2, atol=side)


def test_large_mosaics_are_compressed():
    noise = np.random.default_rng(0).integers(0, 256, (600, 600), dtype=np.uint8)
    assert viewer._picture(noise)[1] and not viewer._picture(noise[:90, :90])[1]


def test_unreadable_volumes_are_left_out(full_bench):
    (full_bench.bench.run("cdpm").samples_folder / "000000.nii.gz").write_bytes(b"broken")
    cohort, _ = read_cohort(full_bench.bench)
    board = leaderboard.from_bench(full_bench.bench, cohort, read_entrants(full_bench.bench, cohort))
    made, _ = viewer.make_viewer(full_bench.bench, cohort, board.rows)
    assert [s.label for s in made.sprites if s.label.startswith("cDPM")] == ["cDPM, volume 2"]


def test_a_nilearn_without_the_widget_is_said(shared_bench, monkeypatch):
    viewer._widget.cache_clear()
    monkeypatch.setattr(viewer, "_SCRIPT", "nilearn/nowhere.js")
    with pytest.raises(MribenchError, match=r"brainsprite\.min\.js"):
        viewer._widget()
    made, reason = viewer.make_viewer(shared_bench.bench, None, [])
    assert made is None and "Install" in reason
