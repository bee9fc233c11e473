"""The ledger: the record of everything, in SQLite or PostgreSQL."""
