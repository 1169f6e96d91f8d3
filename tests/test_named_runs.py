"""Named runs, entrants of other sampler settings, and budgets that are raised."""

from __future__ import annotations

import json
import re
import shutil

import pandas as pd
import pytest
from click.testing import CliRunner

from mribench import training
from mribench.bench.folder import open_bench
from mribench.bench.records import RunRecord
from mribench.cli import main
from mribench.models.cdpm import CDPM
from mribench.models.generator import GeneratorConfig


def call(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory, protocol_file):
    """A bench with a trained cDPM and its samples, and few metrics."""
    folder = tmp_path_factory.mktemp("named") / "bench"
    text = re.sub("metrics = .*", 'metrics = ["ms_ssim"]', protocol_file.read_text())
    text = text.replace("[training.cdpm]", '[training.cdpm]\npreset = "tiny-x0"')
    text = text.replace("calls = 2", "ddim_steps = 2").replace("mixing_sizes = [16]", "")
    protocol_file = folder.with_name("few.toml")
    protocol_file.write_text(text)
    call("train", "cdpm", "--bench", folder, "--protocol", protocol_file)
    call("generate", "cdpm", "--bench", folder)
    return folder


@pytest.fixture
def bench(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "bench")


def test_two_budgets_of_one_model_stand_in_one_table(bench):
    call("train", "cdpm", "--name", "cdpm-long", "--set", "budget=16", "--bench", bench)
    call("train", "cdpm", "--name", "cdpm-long", "--set", "budget=16", "--seed", 2, "--bench", bench)
    call("generate", "--all", "--bench", bench)
    call("report", "--bench", bench)
    table = pd.read_csv(bench / "report" / "table.csv").set_index("run")["model"]
    assert {"cdpm", "cdpm-long", "cdpm-long-s2"} <= set(table.index)
    page = (bench / "report" / "index.html").read_text()
    assert "cDPM (cdpm-long)" in page and "2 trainings, ranked as one: cdpm-long, cdpm-long-s2" in page
    command = open_bench(bench).run("cdpm-long-s2").command("train")
    assert command.startswith("mribench train cdpm --seed 2 --name cdpm-long --bench")


@pytest.mark.parametrize("name", ["noise", "ha_gan", "cdpm-s4", "../x"])
def test_a_name_that_says_something_else_is_refused(bench, name):
    result = call("train", "cdpm", "--name", name, "--bench", bench, code=2)
    assert "Choose another --name" in result.stderr or "name must be" in result.stderr


def test_a_training_never_takes_the_place_of_other_peoples_samples(bench):
    call("evaluate", "--samples", bench / "runs/cdpm/samples", "--name", "theirs", "--bench", bench)
    result = call("train", "cdpm", "--name", "theirs", "--overwrite", "--bench", bench, code=2)
    assert "theirs is a run of this bench already and is a folder" in result.stderr
    assert open_bench(bench).run("theirs").read_samples().files


def test_other_sampler_settings_become_an_entrant_of_the_same_weights(bench):
    args = ("generate", "cdpm", "--name", "cdpm-3", "--set", "ddim_steps=3", "--bench", bench)
    call(*args)
    own, run = open_bench(bench).run("cdpm"), open_bench(bench).run("cdpm-3")
    record = run.read_record()
    assert (record.weights_of, record.sampler, record.config["ddim_steps"]) == ("cdpm", {"ddim_steps": 3}, 3)
    assert not run.weights.exists() and run.is_trained()
    replaced = shutil.copytree(bench, bench.parent / "replaced")
    call("generate", "cdpm", "--set", "ddim_steps=3", "--overwrite", "--bench", replaced)
    expected = open_bench(replaced).run("cdpm").samples().digests
    assert run.samples().digests == expected != own.samples().digests
    assert "cdpm-3: up to date" in call(*args).stderr  # a resumed command
    (run.samples_folder / "000001.nii.gz").unlink()
    assert "cdpm-3: done" in call("generate", "--all", "--bench", bench).stderr
    assert run.samples().digests == expected
    call("report", "--bench", bench)
    page = (bench / "report" / "index.html").read_text()
    assert "cdpm, sampled with ddim_steps = 3" in page and "cDPM (cdpm-3)" in page
    rows = {row["run"]: row for row in json.loads(call("list", "runs", "--bench", bench, "--json").stdout)}
    assert rows["cdpm-3"]["trained"] and rows["cdpm-3"]["weights of"] == "cdpm" and rows["cdpm-3"]["scored"]
    call("verify", "--bench", bench)


def test_verify_repairs_its_samples_and_names_weights_that_are_gone(bench):
    call("generate", "cdpm", "--name", "cdpm-3", "--set", "ddim_steps=3", "--bench", bench)
    run = open_bench(bench).run("cdpm-3")
    before = run.samples().digests
    (run.samples_folder / "000000.nii.gz").write_bytes(b"torn")
    assert "000000.nii.gz" in call("verify", "--bench", bench, code=1).stderr
    call("verify", "--repair", "--bench", bench)
    assert run.samples().digests == before
    shutil.rmtree(bench / "runs" / "cdpm")
    assert "the run cdpm, whose weights it samples" in call("verify", "--bench", bench, code=1).stderr
    result = call("generate", "cdpm-3", "--bench", bench, code=1)
    assert "samples the weights of cdpm, but this bench has no such run" in result.stderr


def test_overwrite_gives_it_other_settings_and_never_takes_a_trained_run(bench):
    args = ("generate", "cdpm", "--name", "cdpm-3", "--bench", bench)
    call(*args, "--set", "ddim_steps=3")
    refused = call(*args, "--set", "ddim_steps=4", code=2)
    assert "config.ddim_steps: expected 3, got 4" in refused.stderr and "--overwrite" in refused.stderr
    call(*args, "--set", "ddim_steps=4", "--overwrite")
    assert open_bench(bench).run("cdpm-3").read_record().sampler == {"ddim_steps": 4}
    call("generate", "cdpm-3", "--name", "cdpm-4", "--set", "eta=0.5", "--bench", bench)
    record = open_bench(bench).run("cdpm-4").read_record()
    assert (record.weights_of, record.sampler) == ("cdpm", {"ddim_steps": 4, "eta": 0.5})
    for name in ("cdpm", "cdpm-3"):
        call("train", "cdpm", "--name", "cdpm-3", "--overwrite", "--bench", bench, code=2)
        call(
            "generate",
            "cdpm",
            "--name",
            "cdpm",
            "--set",
            "ddim_steps=3",
            "--overwrite",
            "--bench",
            bench,
            code=2,
        )
        assert open_bench(bench).run(name).is_trained()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["base=16", "budget=99"], "base, budget cannot change after training; of cDPM only stage_slices, "),
        (["ddim_stepz=3"], "Did you mean 'ddim_steps'"),
        (["ddim_steps=0"], "ddim_steps must be between"),
        (["ddim_steps=2"], "must differ from cdpm"),
        ([], "must differ from cdpm"),
    ],
)
def test_only_settings_of_the_sampler_make_another_entrant(bench, settings, message):
    options = [part for setting in settings for part in ("--set", setting)]
    result = call("generate", "cdpm", "--name", "cdpm-x", *options, "--bench", bench, code=2)
    assert message in result.stderr and not (bench / "runs" / "cdpm-x").exists()


def test_a_new_training_of_the_weights_makes_its_samples_out_of_date(bench):
    call("generate", "cdpm", "--name", "cdpm-3", "--set", "ddim_steps=3", "--bench", bench)
    before = open_bench(bench).run("cdpm-3").samples().digests
    call("train", "cdpm", "--set", "learning_rate=0.004", "--overwrite", "--bench", bench)
    assert "has 4 of others" in call("evaluate", "cdpm-3", "--bench", bench, code=1).stderr
    call("generate", "cdpm-3", "--bench", bench)
    run = open_bench(bench).run("cdpm-3")
    assert run.samples().digests != before
    assert run.read_record().config["learning_rate"] == 0.004 and run.read_record().sampler == {
        "ddim_steps": 3
    }


def test_a_raised_budget_goes_on_and_says_from_where(bench):
    call("report", "--bench", bench)
    run = open_bench(bench).run("cdpm")
    weights = json.loads(run.weights_record.read_text())["digest"]
    args = ("train", "cdpm", "--set", "budget=20", "--bench", bench)
    assert "the same command with --raise-budget" in call(*args, code=2).stderr
    call(*args, "--raise-budget")
    (raised,) = run.read_record().raised
    assert (raised.budget, raised.step, raised.seen, raised.weights_digest) == (12, 6, 12, weights)
    assert run.is_trained() and json.loads(run.weights_record.read_text())["seen"] == 20
    assert "up to date" in call(*args, "--raise-budget").stderr and "up to date" in call(*args).stderr
    call("verify", "--bench", bench)
    assert "has 4 of others" in call("report", "--bench", bench, code=1).stderr
    assert "made by earlier weights" in (bench / "report" / "index.html").read_text()
    call("generate", "cdpm", "--bench", bench)
    call("report", "--bench", bench)
    page = (bench / "report" / "index.html").read_text()
    assert "made by earlier weights" not in page and "raised from 12 when 12 volumes had been seen" in page
    straight = ("train", "cdpm", "--name", "straight", "--set", "budget=20", "--bench", bench)
    call(*straight)
    assert open_bench(bench).run("straight").weights.read_bytes() == run.weights.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "budget=8"], "can be raised, not lowered: it is 12, and 8 was given"),
        (["--set", "budget=20", "--set", "base=16"], "config.base: expected 8, got 16"),
        (["--set", "budget=20", "--overwrite"], "Give one of them"),
        (["--set", "budget=20", "--name", "new"], "must exist for its budget to be raised"),
    ],
)
def test_nothing_but_a_larger_budget_of_a_run_that_exists_goes_on(bench, options, message):
    before = open_bench(bench).run("cdpm").record.read_bytes()
    result = call("train", "cdpm", "--raise-budget", *options, "--bench", bench, code=2)
    assert message in result.stderr
    assert (
        open_bench(bench).run("cdpm").record.read_bytes() == before
        and open_bench(bench).run("cdpm").is_trained()
    )


def test_without_its_checkpoint_a_training_cannot_go_on_and_keeps_its_weights(bench):
    run = open_bench(bench).run("cdpm")
    run.checkpoint.unlink()
    result = call("train", "cdpm", "--set", "budget=20", "--raise-budget", "--bench", bench, code=1)
    assert "state.pt must be there for a training to go on" in result.stderr and run.is_trained()


def test_statistics_of_batchnorm_are_those_of_a_training_with_the_larger_budget(bench):
    """They are renewed for the weights only: the checkpoint keeps those of training."""
    small = ["size=16", "channels=[8,16]", "latent=12", "critic_steps=1"]
    settings = [part for setting in small for part in ("--set", setting)]
    train = ("train", "gan_gp", *settings, "--bench", bench)
    call(*train, "--set", "budget=12")
    call(*train, "--set", "budget=24", "--raise-budget")
    call(*train, "--set", "budget=24", "--name", "straight")
    raised, straight = open_bench(bench).run("gan_gp"), open_bench(bench).run("straight")
    assert raised.weights.read_bytes() == straight.weights.read_bytes()


def test_a_rate_that_follows_the_budget_is_said_to_rise_again(bench, monkeypatch, caplog):
    monkeypatch.setattr(CDPM.Config, "rates_follow_budget", property(lambda config: True))
    run = open_bench(bench).run("cdpm")
    call("train", "cdpm", "--set", "budget=20", "--raise-budget", "--bench", bench)
    assert run.read_record().raised[0].restarted and "they rise again" in caplog.text
    call("generate", "cdpm", "--bench", bench)
    call("report", "--bench", bench)
    assert "rose again" in (bench / "report" / "index.html").read_text()
    straight = run.read_record().model_copy(update={"raised": ()})
    assert straight.recipe != run.read_record().recipe and straight.digest == run.read_record().digest


def test_a_killed_raised_training_goes_on(bench, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    args = ("train", "cdpm", "--set", "budget=20", "--bench", bench)
    with monkeypatch.context() as patched:
        patched.setattr(training, "_save_weights", stop)
        CliRunner().invoke(main, [str(a) for a in (*args, "--raise-budget")])
    run = open_bench(bench).run("cdpm")
    assert not run.weights.exists()
    call(*args)
    assert run.is_trained() and len(run.read_record().raised) == 1


def test_digests_of_runs_without_these_fields_stay_what_they_were():
    record = RunRecord(kind="model", model="cdpm", config={"budget": 1}, seed=0, cohort_digest="x")
    assert set(record.identity) == {"kind", "model", "config", "seed", "cohort_digest"}
    assert record.digests == {record.digest}
    assert not GeneratorConfig(size=16, batch_size=1, budget=1).rates_follow_budget
