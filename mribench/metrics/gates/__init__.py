"""Gates: tests that an entrant must pass before it is ranked."""
