"""Other tools' files: one module per format, each with ``sniff`` and ``read``."""
