"""Files of EAP-IG, read and written."""
