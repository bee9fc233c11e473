"""The job that runs circuits of one task on the prompts of others."""
