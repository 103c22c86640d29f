"""Small sealed records beside the packs: who writes, what goes, what moved, what is damaged, proven or held."""
