"""Files of the registry: artifacts, and the content of each kind of artifact."""
