"""One suite per seam, over every implementation."""
