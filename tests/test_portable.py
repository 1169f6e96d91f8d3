"""Calls that only Linux has: none stands unguarded in the package, and the guards work without them."""

from __future__ import annotations

import ast
import errno
import fcntl
import os
import re
import tomllib
from pathlib import Path

import pytest

import mribench
from mribench import files
from mribench.data.prepare import workers

# What the modules os, signal, socket, resource, select, fcntl and mmap have on Linux and not on macOS.
LINUX_ONLY = """
    sched_getaffinity sched_setaffinity posix_fadvise posix_fallocate fdatasync sendfile splice copy_file_range
    memfd_create eventfd pidfd_open getrandom getxattr setxattr O_TMPFILE O_DIRECT O_PATH RTLD_DEEPBIND
    SCHED_BATCH prlimit RLIMIT_OFILE epoll inotify_init MADV_HUGEPAGE MADV_DONTDUMP MAP_POPULATE MAP_LOCKED
    SOCK_CLOEXEC sigtimedwait sigwaitinfo SIGRTMIN F_OFD_SETLK F_ADD_SEALS mallopt malloc_trim process_cpu_count
    get_phys_pages setresuid unshare setns
"""
GUARDED = {("data/prepare/workers.py", "sched_getaffinity")}


def test_no_call_of_linux_alone_stands_unguarded():
    package = Path(mribench.__file__).parent
    met = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in LINUX_ONLY.split():
                met.add((path.relative_to(package).as_posix(), node.attr))
            if isinstance(node, ast.Constant) and str(node.value).startswith(
                ("/proc/", "/sys/", "/dev/", "libc.so")
            ):
                met.add((path.relative_to(package).as_posix(), node.value))
    assert met == GUARDED


def test_workers_are_counted_without_affinity_and_without_the_size_of_memory(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 6 * 1024**3 // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert workers.default_workers() == 2

    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert workers.default_workers() == 3


@pytest.mark.parametrize("refused", [False, True])
def test_a_file_is_flushed_through_the_drive_where_the_system_can(monkeypatch, tmp_path, refused):
    calls = []

    def full_sync(descriptor, command):
        calls.append(command)
        if refused:
            raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    files.write_text(tmp_path / "a.txt", "text")
    assert calls == ([51, "fsync", 51, "fsync"] if refused else [51, 51])
    assert (tmp_path / "a.txt").read_text() == "text"


def test_without_full_sync_a_file_is_synced_as_on_linux(monkeypatch, tmp_path):
    calls = []
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    monkeypatch.setattr(os, "fsync", calls.append)
    files.write_text(tmp_path / "a.txt", "text")
    assert len(calls) == 2


def test_the_citation_and_the_container_are_of_this_version():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = dict(re.findall(r"^([a-z-]+): (.+)$", (root / "CITATION.cff").read_text(), re.M))
    assert (citation["version"], citation["license"]) == (mribench.__version__, project["license"])
    assert citation["cff-version"] == "1.2.0" and project["name"] in citation["title"]
    image = re.search(r"^FROM python:(\S+)-slim$", (root / "Dockerfile").read_text(), re.M)
    assert image and project["requires-python"] == f">={image[1]}"


def test_the_container_gets_what_the_build_needs():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    sent = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sent == {"mribench", "pyproject.toml", project["readme"], *project["license-files"]}
