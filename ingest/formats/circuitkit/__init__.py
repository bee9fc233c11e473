"""Files of circuitkit."""
