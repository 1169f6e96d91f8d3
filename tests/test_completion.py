"""Shell completion by click's own protocol: what bash, zsh and fish are offered."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mribench.metrics import METRICS
from mribench.models import MODELS


def offered(shell, line, folder="."):
    """What the program prints when a shell asks how the last word of `line` may go on."""
    words = line.split(" ")
    asks = {"COMP_WORDS": line, "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1)}
    result = subprocess.run(
        [sys.executable, "-m", "mribench"],
        env={**os.environ, **asks, "_MRIBENCH_COMPLETE": f"{shell}_complete"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


@pytest.fixture(autouse=True)
def from_anywhere(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path or os.getcwd() for path in sys.path))


def test_bash_completes_commands_and_models():
    assert offered("bash", "mribench tra") == ["plain,train"]
    assert offered("bash", "mribench train ") == [f"plain,{name}" for name in MODELS]
    assert offered("bash", "mribench check ms") == [
        f"plain,{name}" for name in METRICS if name.startswith("ms")
    ]


def test_zsh_and_fish_complete_models():
    assert offered("zsh", "mribench train cd")[:2] == ["plain", "cdpm"]
    assert offered("fish", "mribench train cd") == ["plain,cdpm"]


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_runs_of_the_bench_are_completed(command, tmp_path):
    for bench, run in (("mribench-bench", "cdpm-s1"), ("other", "ha_gan")):
        (tmp_path / bench / "runs" / run).mkdir(parents=True)
        (tmp_path / bench / "runs" / run / "run.json").touch()
    assert offered("bash", f"mribench {command} ", tmp_path) == ["plain,cdpm-s1"]
    assert offered("bash", f"mribench {command} --bench other h", tmp_path) == ["plain,ha_gan"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_the_readme_can_be_had(shell):
    program = "from mribench.cli import main; main(prog_name='mribench')"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "_MRIBENCH_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_MRIBENCH_COMPLETE={shell}_complete" in result.stdout
