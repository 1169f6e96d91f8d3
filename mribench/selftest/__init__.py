"""What each metric detects: known faults in growing doses, and planted copies."""
