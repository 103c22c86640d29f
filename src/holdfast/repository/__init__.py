"""The repository engine: restore points as immutable trees of content-addressed blocks."""
