"""The worlds that a lab can be started with."""
