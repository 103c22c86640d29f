"""Tests of the changed-block bitmap."""
