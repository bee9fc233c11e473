"""Which circuits represent a task, which are replicates, and what they have in common."""
