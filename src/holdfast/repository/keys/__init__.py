"""Who can open a repository, and how its keys change."""
