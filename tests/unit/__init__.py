"""Fast tests that mirror src/."""
