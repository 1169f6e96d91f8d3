"""Samples that other programs stored: reading them, and the recipe that brings them onto a bench's grid."""
