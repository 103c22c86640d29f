"""Is everything still whole? Verification, scrub and what they find."""
