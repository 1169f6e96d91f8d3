"""Intervals, real baselines, permutation tests and the comparison of entrants."""
