"""A model as the algorithms see it: its anatomy, its norms, batches of prompts, metrics."""
