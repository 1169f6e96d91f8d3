"""Sentences of the report that explain: what each model is, how to read a table, what a page does not show."""

from __future__ import annotations

SUMMARY = (
    "This page ranks generators of 3D brain MRI by how closely their samples, taken as a set, resemble real "
    "volumes, which are the reference."
)
SIMULATED = (
    "SIMULATED brains, not patients. Every volume that this page calls real was drawn by a simulator from "
    "one average brain. The ranking shows that the pipeline works; it says nothing about patients."
)
REWARDS_COPYING = (
    "This protocol rewards copying: its reference volumes are part of the training set, so a model that "
    "repeats training volumes scores better than one that makes new volumes. It has no held-out volumes, hence "
    "no control real_heldout and no memorisation AUC. Prefer a protocol with disjoint roles."
)
NO_CLINICAL_USE = (
    "Scores compare sets of images. They do not show that any single image is anatomically right, and "
    "nothing here supports a clinical use."
)
ONE_MODEL = "No ranks and nothing in bold: that needs at least two models, and this table has fewer."
NO_RANKS = "No ranks: fewer than two models pass the gates and have comparable scores in all the families that count."

UNKNOWN_METRIC = "See the documentation of this metric."
EVIDENCE = (
    "The controls of this page are part of the evidence: a metric must separate the controls that it declares to "
    "detect from held-out real volumes. Every formula and its source stand in docs/metrics.md of mribench."
)

LICENCES = {
    "simulated": "mribench is Apache-2.0. The volumes derive from the MNI152 template (McConnell Brain Imaging "
    "Centre), whose notice in THIRD_PARTY.md must go with them.",
    "own data": "mribench is Apache-2.0. Weights and samples follow the terms of the volumes they were made "
    "from; ask the owners of the data before you share either.",
    "outside": "Not known to mribench.",
}
