"""From scans to a cohort: find, prepare, check, give each subject its role."""
