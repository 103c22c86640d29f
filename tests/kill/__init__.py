"""Real processes that work on a real repository and are killed at random instants."""
