"""Feature extractors: from volumes to feature vectors."""
