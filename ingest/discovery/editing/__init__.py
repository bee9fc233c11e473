"""Knowledge edits: which weights to change, by how much, and what the change does."""
