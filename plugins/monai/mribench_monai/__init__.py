"""Generators of mribench that are built from MONAI's networks and schedulers."""
