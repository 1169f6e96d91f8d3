"""Starts a Python program in several processes, as a launcher does, and waits for all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from click.testing import CliRunner

from mribench.cli import main


def alone(*words: object) -> None:
    """The command line in this process, which must succeed."""
    end = CliRunner().invoke(main, [*map(str, words)], catch_exceptions=False)
    assert end.exit_code == 0, end.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(count: int, *words: object, **variables: str) -> list[subprocess.Popen]:
    """The processes, by rank; `variables` are added to their environment."""
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def run(count: int, *words: object, **variables: str) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each process."""
    started = start(count, *words, **variables)
    ends = [process.communicate(timeout=300) for process in started]
    return [(process.returncode, *end) for process, end in zip(started, ends, strict=True)]


def mribench(count: int, *words: object, **variables: str) -> list[tuple[int, str, str]]:
    """The same for the command line."""
    return run(count, "-m", "mribench", *words, **variables)
