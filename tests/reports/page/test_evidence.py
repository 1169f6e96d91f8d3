import pytest

from mribench.files import write_json
from mribench.reports.page.evidence import read_evidence
from mribench.reports.page.html import write_report
from mribench.reports.records import read_cohort


def record(maker, **other):
    def verdict(fault, metric, dose):
        return {"degradation": fault, "metric": metric, "notices_from": dose, "monotone": True}

    return {
        "command": "mribench selftest",
        "protocol": "test",
        "versions": {},
        "device": {},
        "metrics": ["fid_a"],
        "controls": [],
        "planted": {"kinds": [], "fresh": {"volumes": 3, "taken_for_copies": 0, "smallest_ratio": 0.9}},
        "first_component": {},
        "failures": [],
        "seconds": 1.0,
        "cells": [],
        "problems": [],
        "cohort": {"digest": maker.cohort.digest, "source": "simulated", "shape": [16, 16, 16]},
        "extractor": maker.bench.protocol.evaluation.extractor,
        "n": {"samples": 3, "reference": 3},
        "degradations": [
            {"name": "other_subjects", "title": "Other real subjects", "unit": "no fault", "doses": [1]},
            {"name": "blur", "title": "Blur", "unit": "SD, voxels", "doses": [0.5, 1.0]},
            {"name": "repeats", "title": "Repeats", "unit": "share", "doses": [0.5]},
        ],
        "verdicts": [
            verdict("other_subjects", "fid_a", None),
            verdict("blur", "fid_a", 0.5),
            verdict("repeats", "fid_a", None),
            verdict("blur", "memorisation", None),
            verdict("repeats", "ms_ssim", 0.5),
        ],
        **other,
    }


def evidence(maker):
    return read_evidence(maker.bench, read_cohort(maker.bench)[0])


def test_verdicts_become_a_sentence_per_metric(full_bench):
    write_json(
        full_bench.bench.folder / "selftest.json", record(full_bench, problems=["mmd does not detect noise"])
    )
    found, about = evidence(full_bench)
    assert "It failed: mmd does not detect noise." in about
    assert found == {
        "fid_a": "Self-test: detected blur (from 0.5 SD, voxels). Did not detect repeats.",
        "memorisation": "Self-test: did not detect blur.",
        "ms_ssim": "Self-test: detected repeats (from 0.5 share).",
    }
    assert "3 samples, 3 reference" in about
    text = write_report(full_bench.bench).read_text()
    assert text.count("Self-test: ") == 3 and "Self-test on this cohort" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cohort": {"digest": "0", "source": "simulated", "shape": [16, 16, 16]}}, "another cohort"),
        ({"extractor": "inception-2015"}, "another feature extractor, inception-2015"),
        ({"verdicts": [{"metric": "fid_a"}]}, "verdicts.0.degradation"),
        (None, "no self-test"),
    ],
)
def test_what_cannot_be_used_is_said(full_bench, change, said):
    path = full_bench.bench.folder / "selftest.json"
    if change is not None:
        write_json(path, record(full_bench, **change))
    found, about = evidence(full_bench)
    assert not found and said in about and str(full_bench.bench.folder) not in about


def test_a_torn_record_is_said(full_bench):
    (full_bench.bench.folder / "selftest.json").write_text("{", encoding="utf-8")
    assert "readable JSON" in evidence(full_bench)[1]
