"""Sentences of the report that explain: what each metric sees, how to read a column, what a page is not."""

from __future__ import annotations

SUMMARY = (
    "This page ranks generators of 3D brain MRI by how closely their samples, taken as a set, resemble real "
    "volumes that play the part of the reference."
)
SIMULATED = (
    "SIMULATED brains, not patients. Every volume that this page calls real was drawn by a simulator from "
    "one average brain. The ranking shows that the pipeline works; it says nothing about patients."
)
REWARDS_COPYING = (
    "This protocol rewards copying: its reference volumes are part of the training set, so a model that "
    "repeats training volumes scores better than an honest one. It keeps no held-out volumes, hence no "
    "control real_heldout and no memorisation AUC. Prefer a protocol with disjoint roles."
)
NO_CLINICAL_USE = (
    "Scores compare sets of images. They do not show that any single image is anatomically right, and "
    "nothing here supports a clinical use."
)
ONE_MODEL = "No ranks and nothing in bold: that needs at least two models, and this table has fewer."
NO_RANKS = "No mean rank: fewer than two models have comparable scores in all the families that count."

# metric -> (what it sees, what it does not)
SEES: dict[str, tuple[str, str]] = {
    "ms_ssim": (
        "How much the samples resemble one another, over all pairs of whole volumes. Good is what the real "
        "volumes have among themselves: higher means too little variety, lower too much of it, or noise.",
        "Whether a sample looks like a brain, and whether it was copied: copies of the training set score "
        "perfectly.",
    ),
    "mmd": (
        "Whether the features of the three central slices are distributed as in the reference. Unbiased: 0 "
        "is expected of a perfect generator, and small negative values are chance.",
        "Copying, and everything that lies outside the three central slices.",
    ),
    "fid_a": (
        "The distance between Gaussians fitted to features of the central axial slice: blur, noise, wrong "
        "contrast.",
        "Copying and other slices. It is biased upwards when samples are few, so only equal numbers "
        "compare, and with few samples it can prefer a collapsed generator.",
    ),
    "fid_c": ("As FID-A, for the central coronal slice.", "As FID-A."),
    "fid_s": ("As FID-A, for the central sagittal slice.", "As FID-A."),
    "memorisation": (
        "Copying: how often the volume most similar to a sample is a training volume rather than one of "
        "equally many held-out volumes, mirrored or not. 0.5 is expected of a generator that copies nothing, "
        "1 of one that copies.",
        "Quality, and copies that were turned or shifted. An interval of zero width means that "
        "all samples agreed, not that the value is certain.",
    ),
    "copy_rate": (
        "Copying, sample by sample: the share whose nearest training volume is less than half as far as the "
        "second nearest, mirrored or not.",
        "Quality, changed copies as above, and copies of a volume that the training set holds twice. An "
        "interval of zero width around 0 means that no copy was seen, not that there is none.",
    ),
    "kid_a": (
        "As FID-A by a polynomial kernel, without FID's bias: 0 is expected of a perfect generator at any "
        "number of samples, and small negative values are chance.",
        "Copying and other slices.",
    ),
    "kid_c": ("As KID-A, for the central coronal slice.", "As KID-A."),
    "kid_s": ("As KID-A, for the central sagittal slice.", "As KID-A."),
    "precision": (
        "The share of samples that lie among the reference volumes in feature space: do samples look real?",
        "Variety: one good sample made again and again has a precision of 1.",
    ),
    "recall": (
        "The share of reference volumes that lie among the samples in feature space: is everything covered?",
        "Whether samples look real: a few odd ones that lie far apart can cover everything.",
    ),
    "density": (
        "As precision, counting how many reference volumes a sample is near to; outliers move it less.",
        "Variety, as precision.",
    ),
    "coverage": (
        "The share of reference volumes that have a sample among their nearest neighbours.",
        "Samples that resemble nothing: it asks about the reference volumes only.",
    ),
    "fid_3d": (
        "As FID, with features of whole volumes instead of one slice.",
        "Copying. It is biased upwards when samples are few, as FID-A.",
    ),
    "mmd_voxel": (
        "The difference between the two mean images: intensity, bias field, registration.",
        "Everything else: a generator that always repeats the mean image scores as well as a perfect one.",
    ),
    "mmd_legacy": (
        "The biased form of the linear-kernel MMD that older tables print; for orientation only.",
        "Variety: low variance lowers it, so a collapsed generator beats a perfect one.",
    ),
    "ms_ssim_kwon2019": (
        "MS-SSIM as an often copied evaluation script computes it, its product error included; for old "
        "tables only.",
        "As MS-SSIM. Its values cannot be compared with the standard formula's.",
    ),
}
UNKNOWN_METRIC = ("See the documentation of this metric.", "See the documentation of this metric.")
EVIDENCE = (
    "The controls of this page are part of the evidence: a metric must tell those apart that it is said to see. "
    "Every formula and its source stand in docs/metrics.md of mribench."
)

LICENCES = {
    "simulated": "mribench is Apache-2.0. The volumes derive from the MNI152 template (McConnell Brain Imaging "
    "Centre), whose notice in THIRD_PARTY.md must go with them.",
    "own data": "mribench is Apache-2.0. Weights and samples follow the terms of the volumes they were made "
    "from; ask those who gave the data before sharing either.",
    "outside": "Not known to mribench.",
}
