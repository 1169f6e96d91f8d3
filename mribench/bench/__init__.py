"""The folder of a bench: its protocol, its records, its runs and its controls."""
