"""Maintenance of a registry: updating the graph, finding and repairing damage, backups."""
