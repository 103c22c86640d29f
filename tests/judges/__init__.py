"""Programs that are not ours decide."""
