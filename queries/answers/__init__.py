"""One module per question: frozen results that make their own rows and do not import plots."""
