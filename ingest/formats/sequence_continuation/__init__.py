"""Files of shared circuits of sequence continuation."""
