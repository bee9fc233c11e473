"""The job that scores all edges and searches for the smallest faithful circuit."""
