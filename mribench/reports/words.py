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
        "equally many held-out volumes. 0.5 is expected of a generator that copies nothing, 1 of one that "
        "copies.",
        "Quality, and copies that were mirrored, turned or shifted. An interval of zero width means that "
        "all samples agreed, not that the value is certain.",
    ),
    "copy_rate": (
        "Copying, sample by sample: the share whose nearest training volume is less than half as far as the "
        "second nearest.",
        "Quality, changed copies as above, and copies of a volume that the training set holds twice. An "
        "interval of zero width around 0 means that no copy was seen, not that there is none.",
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
