"""Save a fitted net to one small file, and load it without running code from it."""
