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
NO_RANKS = "No mean rank: fewer than two models have comparable scores in all the families that count."

UNKNOWN_METRIC = "See the documentation of this metric."
EVIDENCE = (
    "The controls of this page are part of the evidence: a metric must separate the controls that it declares to "
    "detect from held-out real volumes. Every formula and its source stand in docs/metrics.md of mribench."
)

# model -> what it is; docs/models.md has the rest
MODELS = {
    "vae_gan": "3D-VAE-GAN: a variational autoencoder whose decoder is also a GAN's generator (Larsen et al. "
    "2016; in 3D by Kwon et al. 2019).",
    "gan_gp": "3D-GAN-GP: a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017; in 3D by Kwon et al. "
    "2019).",
    "alpha_wgan": "3D-alpha-WGAN: an autoencoder and a Wasserstein GAN in one, with a second critic for the "
    "latent code (Kwon, Han and Kim 2019).",
    "cce_gan": "CCE-GAN: a Wasserstein GAN whose encoder is trained for cycle consistency (Xing, Sinha and Hwang "
    "2021).",
    "ha_gan": "HA-GAN: a GAN that makes a whole small volume and a part of it at full resolution (Sun et al. "
    "2022).",
    "dpm3d": "3D-DPM: a denoising diffusion model with a 3D U-Net (Dorjsembe et al. 2022).",
    "cdpm": "cDPM: a diffusion model that makes a volume in stages of axial slices, each given slices already "
    "made (Peng et al. 2023).",
}
MODEL_LIMITS = (
    "It can make only what its training volumes show, and it may repeat them: see memorisation, copy rate and "
    "the nearest training volumes."
)
LICENCES = {
    "simulated": "mribench is Apache-2.0. The volumes derive from the MNI152 template (McConnell Brain Imaging "
    "Centre), whose notice in THIRD_PARTY.md must go with them.",
    "own data": "mribench is Apache-2.0. Weights and samples follow the terms of the volumes they were made "
    "from; ask the owners of the data before you share either.",
    "outside": "Not known to mribench.",
}
