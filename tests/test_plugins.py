"""Plug-ins of other packages: names without running code, failures that name a package, names that are taken."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from mribench.bench.folder import create_bench
from mribench.bench.protocol import load_protocol
from mribench.cli import main
from mribench.errors import UsageError
from mribench.metrics import METRIC_REGISTRY, METRICS, default_metrics, get_metric, plugin_metrics
from mribench.metrics.features.slices import EXTRACTOR_REGISTRY
from mribench.models import MODEL_REGISTRY, MODELS, get_model
from mribench.plugins import PluginFailure
from mribench.session import Session

METRIC = """
from dataclasses import dataclass
from mribench.metrics.metric import Metric

@dataclass(frozen=True, kw_only=True, eq=False)
class Plain(Metric[None]):
    def definition(self, arrays): return {}
    def gather(self, arrays): return None
    def value(self, gathered, keep): return 0.5

def plain(name, **facts):
    own = dict(title=name, family=name, better="lower", measures="A number.", blind_to="All.")
    return Plain(name=name, **{**own, **facts})
"""
OPEN, SHY = f'{METRIC}\nOPEN = plain("open")\n', f'{METRIC}\nSHY = plain("shy", opt_in=True)\n'


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def test_names_are_read_without_running_the_packages_code(install_plugin):
    install_plugin("loud", "raise RuntimeError('it ran')", generators={"loud": "loud:X"})
    assert MODEL_REGISTRY.names()[-1] == "loud"
    assert MODEL_REGISTRY.package("loud") == "loud 1.0"
    MODEL_REGISTRY.check("loud")
    assert "loud" not in sys.modules


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('it ran\\nand more')", r"cannot be loaded: RuntimeError: it ran$"),
        ("import sys; sys.exit(3)", r"cannot be loaded: SystemExit: 3"),
        ("import a_module_that_nobody_has", r"cannot be loaded: ModuleNotFoundError: No module"),
        ("Y = 1", r"cannot be loaded: AttributeError"),
        ("X = (", r"cannot be loaded: SyntaxError"),
        ("X = 1", r"must be a subclass of mribench.models.generator:Generator, but is 1\."),
        (
            "from mribench.models.generator import Generator\nX = Generator",
            r"must define title, summary, source",
        ),
    ],
)
def test_a_plug_in_that_cannot_be_used_names_its_package(install_plugin, code, said):
    install_plugin("broken", code, generators={"broken": "broken:X"})
    with pytest.raises(PluginFailure, match=r"The generator 'broken' of broken 1\.0 " + said):
        get_model("broken")


def test_a_metric_must_be_an_object_that_has_the_name_of_its_entry_point(install_plugin):
    install_plugin(
        "meter", OPEN, metrics={"other": "meter:OPEN", "plain": "meter:Plain", "open": "meter:OPEN"}
    )
    assert get_metric("open").name == "open"
    for name in ("other", "plain"):
        with pytest.raises(
            PluginFailure, match=f"of meter 1.0 must be an object named '{name}' of mribench.metrics"
        ):
            get_metric(name)


def test_the_lists_go_on_with_one_warning_for_each_plug_in_that_fails(install_plugin, caplog):
    install_plugin("broken", "raise RuntimeError('no')", metrics={"bad": "broken:X"})
    install_plugin("meter", OPEN, metrics={"open": "meter:OPEN"})
    for _ in range(2):
        assert [name for name, _ in METRIC_REGISTRY.usable()] == [*METRICS, "open"]
    assert [record.message for record in caplog.records] == [
        "The metric 'bad' of broken 1.0 cannot be loaded: RuntimeError: no"
    ]
    row = json.loads(call("list", "metrics", "--json").stdout)[-1]
    assert (row["metric"], row["package"], row["default"]) == ("open", "meter 1.0", False)


def test_a_name_that_two_packages_claim_is_refused_by_naming_both(install_plugin, caplog):
    install_plugin("one", OPEN, metrics={"open": "one:OPEN"})
    install_plugin("two", OPEN, metrics={"open": "two:OPEN"})
    with pytest.raises(
        UsageError, match=r"'open' is claimed by (one 1.0 and by two|two 1.0 and by one) 1\.0"
    ):
        get_metric("open")
    assert plugin_metrics() == ()
    assert len(caplog.records) == 1 and "Uninstall all but one" in caplog.text
    result = call("check", "open")
    assert result.exit_code == 2 and result.output.count("is claimed by") == 1


def test_a_package_cannot_replace_what_mribench_has(install_plugin, caplog):
    """Else an installed package could change every score without a word."""
    install_plugin("thief", OPEN, metrics={"fid_a": "thief:OPEN"}, extractors={"effnet-lite0": "thief:OPEN"})
    assert get_metric("fid_a").title == "FID-A"
    assert EXTRACTOR_REGISTRY.get("effnet-lite0").dimension == 1280
    assert (METRIC_REGISTRY.package("fid_a"), EXTRACTOR_REGISTRY.package("effnet-lite0")) == ("", "")
    assert "The metric 'fid_a' of thief 1.0 is left out: mribench has its own 'fid_a'." in caplog.text


@pytest.mark.parametrize("name", ["../up", "Upper", "white space", "ünï", "-x", "x" * 61])
def test_a_name_that_could_be_no_folder_is_left_out_with_its_package(install_plugin, caplog, name):
    install_plugin("odd", OPEN, metrics={name: "odd:OPEN"})
    assert METRIC_REGISTRY.names() == list(METRICS)
    assert repr(name) in caplog.text and "of odd 1.0 is left out" in caplog.text


def test_unreadable_entry_points_of_any_package_cost_the_plug_ins_and_nothing_else(install_plugin, caplog):
    site = install_plugin("meter", OPEN, metrics={"open": "meter:OPEN"})
    (site / "meter-1.0.dist-info" / "entry_points.txt").write_text("[mribench.metrics]\nno equals sign\n")
    assert METRIC_REGISTRY.names() == list(METRICS)
    assert "No plug-in can be used" in caplog.text


def test_what_is_installed_changes_neither_the_default_metrics_nor_the_digest_of_a_protocol(install_plugin):
    """Else two laboratories with one protocol could not compare their scores."""
    before = default_metrics(), load_protocol("demo").digest
    install_plugin("meter", OPEN, metrics={"open": "meter:OPEN"})
    install_plugin("reserved", SHY, metrics={"shy": "reserved:SHY"})
    assert (default_metrics(), load_protocol("demo").digest) == before
    assert plugin_metrics() == ("open",)


def test_a_protocol_may_name_a_plug_in_and_its_bench_remembers_the_package(
    install_plugin, tmp_path, protocol_file
):
    asked = tmp_path / "asked.toml"
    asked.write_text(protocol_file.read_text().replace('"copy_rate"]', '"copy_rate", "open"]'))
    with pytest.raises(UsageError, match="There is no metric called 'open'"):
        load_protocol(str(asked))
    install_plugin("meter", OPEN, metrics={"open": "meter:OPEN"})
    bench = create_bench(tmp_path / "bench", load_protocol(str(asked)))
    assert bench.packages == {"metric open": "meter 1.0"}
    plain = create_bench(tmp_path / "plain", load_protocol(str(protocol_file)))
    assert plain.packages == {}


def test_an_unknown_model_is_refused_with_the_plug_ins_among_the_choices(install_plugin):
    install_plugin("loud", "", generators={"loud": "loud:X"})
    with pytest.raises(
        UsageError, match=r"no generator called 'loudd'. Did you mean 'loud'\? Choose one of: .*cdpm.*"
    ):
        get_model("loudd")


def test_help_does_not_look_for_plug_ins():
    code = (
        "import sys; from click.testing import CliRunner; from mribench.cli import main; "
        "CliRunner().invoke(main, ['--help']); sys.exit('importlib.metadata' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BRAINS = """
from mribench.models.gan_gp import GANGP

class Brains(GANGP):
    title = "Brains"
"""


@pytest.mark.parametrize(("words", "more"), [((), []), (("--models", "all"), ["brains"])])
def test_the_demo_trains_plug_ins_only_when_it_is_asked_to(
    install_plugin, tmp_path, monkeypatch, words, more
):
    install_plugin("stranger", BRAINS, generators={"brains": "stranger:Brains"})
    trained = []
    monkeypatch.setattr(Session, "cohort", lambda self: SimpleNamespace(digest="none"))
    monkeypatch.setattr(Session, "train", lambda self, plan: trained.append(plan.record.model))
    for step in ("generate_all", "report"):
        monkeypatch.setattr(Session, step, lambda self, **options: None)
    result = call("-q", "demo", "--bench", tmp_path / "bench", *words)
    assert result.exit_code == 0, result.output
    assert trained == [*MODELS, *more]
