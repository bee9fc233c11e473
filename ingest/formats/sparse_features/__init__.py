"""Files of sparse feature circuits."""
