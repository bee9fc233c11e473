"""The parts that circuits share, by task, and the paths through them."""
