"""The expensive arrays that metrics share, each computed once and stored by digest."""
