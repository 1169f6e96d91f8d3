"""python -m mribench."""

from mribench.cli import main

main(prog_name="mribench")
