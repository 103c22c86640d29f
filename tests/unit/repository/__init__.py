"""The repository engine, part by part."""
