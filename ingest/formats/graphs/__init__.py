"""General graph files: DOT, GraphML, node-link JSON; import and export."""
