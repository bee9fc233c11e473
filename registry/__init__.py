"""The circuit registry: keep, query and compare circuits found in language models."""
