"""What each metric notices: known faults in growing doses, and planted copies."""
