"""The protocol of a small prepared cohort."""

PROTOCOL = """
name = "mine"
version = 1
seed = 1
[cohort]
source = "prepared"
size = 16
train = 2
reference = 2
holdout = 2
[evaluation]
samples = 2
tsne_samples = 2
"""
