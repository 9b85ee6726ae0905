"""Weight files of detectors: fetched, checked, trained."""
