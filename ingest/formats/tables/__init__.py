"""Tables of edges and of nodes: CSV, JSON Lines, Parquet; import and export."""
