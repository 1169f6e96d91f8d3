"""Table 1 of Peng et al. (MICCAI 2023) as printed: shown beside a table of ours, never ranked with it."""

from __future__ import annotations

SOURCE = (
    "Peng et al., Generating Realistic Brain MRIs via a Conditional Diffusion Probabilistic Model, MICCAI 2023, "
    "Table 1"
)
REAL_MS_SSIM = "79.2"
WHY_NOT = (
    "Published, not comparable: other data (1262 T1 volumes of ADNI-1, UCSF and SRI), 500 samples a model, no "
    "intervals. Kernel and estimator of the MMD, window and scales of the MS-SSIM, slices and network of the FID "
    "are not stated. Nothing on this page was made to match these numbers."
)
SLAB = "* 32 axial slices only, against real volumes cropped alike."


# model, MS-SSIM (%), its distance to the real volumes', MMD (10^3), FID per view; "" = not given
TABLE_1 = (
    ("3D-VAE-GAN", "88.3", "9.1", "5.15", "320", "247", "398"),
    ("3D-GAN-GP", "81.0", "1.8", "15.7", "141", "127", "281"),
    ("3D-α-WGAN", "82.6", "3.4", "13.2", "121", "116", "193"),
    ("CCE-GAN", "81.5", "2.3", "3.54", "69.4", "869", "191"),
    ("HA-GAN", "36.8", "42.4", "226", "477", "1090", "554"),
    ("3D-DPM", "79.7*", "0.5*", "15.2*", "188*", "", ""),
    ("cDPM", "78.6", "0.6", "3.14", "32.4", "45.8", "91.1"),
)
COLUMNS = ("MS-SSIM (%)", "gap", "MMD (10³)", "FID-A", "FID-C", "FID-S")


def shown_beside(protocol: str) -> bool:
    """Whether a protocol follows the paper's way, so that a reader will look for its numbers."""
    return protocol.startswith("peng2023")
