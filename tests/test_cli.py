"""The command line: help without torch, wrong arguments, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mribench.cli import main
from mribench.commands import list as list_command
from mribench.commands.options import parse_settings
from mribench.errors import UsageError
from mribench.models import get_model

COMMANDS = [
    "demo",
    "init",
    "prepare",
    "train",
    "generate",
    "adopt",
    "evaluate",
    "report",
    "export",
    "compare",
    "leaderboard",
    "list",
    "new",
    "check",
    "verify",
    "selftest",
]


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"mribench {command}" in result.output


def test_help_leaves_torch_unimported():
    code = (
        "import sys; from click.testing import CliRunner; from mribench.cli import main; "
        "CliRunner().invoke(main, ['--help']); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "cdqm"], "Did you mean 'cdpm'?"),
        (["train"], "Give either MODEL or --all"),
        (["train", "cdpm", "--set", "budget"], "--set needs KEY=VALUE"),
        (["train", "cdpm", "--protocol", "dmo"], "Did you mean demo?"),
        (["train", "cdpm", "--protocol", "peng2023"], "mribench prepare SRC"),
        (["generate", "--all"], "there is no bench.json"),
        (["report"], "there is no bench.json"),
        (["evaluate", "--real", "."], "--real goes with --samples"),
        (["evaluate", "--extractor", "x"], "go with --real"),
        (["check", "nothing"], "check needs one of"),
        (["train", "cdpm", "--device", "cuda"], "torch sees none here"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, args, message):
    import torch

    if "cuda" in args and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.chdir(tmp_path)
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_list_models_as_json():
    rows = json.loads(call("list", "models", "--json").stdout)
    anchor = next(r for r in rows if (r["model"], r["preset"]) == ("cdpm", "paper-anchor"))
    assert anchor["parameters"] == 118_952_833 and anchor["size"] == 128
    assert anchor["subnetworks"] == {"net": 118_952_833}


@pytest.mark.parametrize("what", ["metrics", "protocols"])
def test_lists(what):
    assert call("list", what).exit_code == 0
    assert json.loads(call("list", what, "--json").stdout)


def test_check_runs_a_contract():
    result = call("check", "mmd_voxel")
    assert result.exit_code == 0, result.output
    assert result.output.count("ok ") == 4


@pytest.mark.parametrize(
    "setting",
    [
        "tau_max=32",
        "heads=3",
        "base=33",
        "base=0",
        "batch_size=0",
        "multipliers=[]",
        "size=0",
        "learning_rate=-1",
        "eta=2",
        "budget=0",
        "ema=2",
        "attention_sizes=[7]",
        "learning_rate=fast",
    ],
)
def test_impossible_settings_are_refused_at_once(setting):
    with pytest.raises(UsageError, match="cDPM cannot have"):
        get_model("cdpm").build_config("tiny", **parse_settings((setting,)))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_one_sentence(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setitem(list_command._LISTS, "models", fail)
    result = call("list", "models")
    assert result.exit_code == 1 and "not enough memory" in result.output


def test_another_runtime_error_is_not_taken_for_it(monkeypatch):
    def fail(*_):
        raise RuntimeError("sizes differ")

    monkeypatch.setitem(list_command._LISTS, "models", fail)
    assert isinstance(call("list", "models").exception, RuntimeError)
