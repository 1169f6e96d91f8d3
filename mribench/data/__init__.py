"""Real and simulated volumes: reading, checking, preparing, and the cohort."""
