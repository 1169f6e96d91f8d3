"""Protocols: shipped ones load, digests guard the contract, mistakes are named."""

from __future__ import annotations

from importlib import resources

import pytest

from mribench.bench.protocol import differences, load_protocol, shipped
from mribench.errors import UsageError

DIGESTS = {  # a shipped file never changes under the same version: change one here only together with it
    "demo": "5b4247ad05303a25",
    "peng2023": "912ab9a7e61bd260",
    "peng2023-heldout": "df3e60146a971561",
    "small": "fa4bdbc939a81f2f",
}


def test_the_four_protocols_are_shipped():
    assert shipped() == sorted(DIGESTS)


@pytest.mark.parametrize("name", DIGESTS)
def test_a_shipped_protocol_is_named_after_its_file_and_does_not_change(name):
    protocol = load_protocol(name)
    assert protocol.name == name
    assert (protocol.version, protocol.digest[:16]) == (3, DIGESTS[name])
    assert protocol.cohort.voxels.shape == (protocol.cohort.size,) * 3


def test_the_papers_grid():
    assert load_protocol("peng2023").cohort.voxels.spacing_mm == (1.375, 1.375, 1.0)


def test_training_defaults_are_no_part_of_the_contract():
    demo = load_protocol("demo")
    assert demo.model_copy(update={"training": {"preset": "paper"}}).digest == demo.digest
    assert demo.model_copy(update={"seed": 1}).digest != demo.digest


def test_simulated_shows_in_the_name():
    protocol = load_protocol("peng2023", simulated=True)
    assert protocol.name == "peng2023-simulated"
    assert protocol.cohort.source == "simulated"


def test_unknown_names_get_a_guess():
    with pytest.raises(UsageError, match="Did you mean peng2023-heldout"):
        load_protocol("peng2023-heldou")


@pytest.mark.parametrize("line", ["sizes = 3", "size = 3", "reference = 999"])
def test_bad_files_are_refused(tmp_path, line):
    path = tmp_path / "p.toml"
    text = (
        'name = "p"\nversion = 1\nseed = 0\n[evaluation]\nsamples = 2\ntsne_samples = 2\n[cohort]\n'
        f'source = "simulated"\ntrain = 9\nholdout = 2\nreference_from_train = true\n{line}\n'
    )
    text += "" if line.startswith("size =") else "size = 32\n"
    text += "" if line.startswith("reference =") else "reference = 2\n"
    path.write_text(text)
    with pytest.raises(UsageError, match="must be a valid protocol"):
        load_protocol(str(path))


def test_an_unknown_metric_is_refused_at_once(tmp_path):
    file = tmp_path / "own.toml"
    text = (resources.files("mribench.bench.protocols") / "demo.toml").read_text()
    file.write_text(text.replace("tsne_samples = 16", 'tsne_samples = 16\nmetrics = ["fid_q"]'))
    with pytest.raises(UsageError, match="no metric called 'fid_q'"):
        load_protocol(str(file))


def test_differences_name_every_leaf():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: expected 1, got 3"]
