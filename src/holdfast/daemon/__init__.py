"""The composition root: the only place where objects are wired and settings are read."""
