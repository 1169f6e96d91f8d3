"""The expensive arrays that metrics share, each computed once and kept by digest."""
