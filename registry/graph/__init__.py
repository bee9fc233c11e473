"""Graph stores: a projection of the ledger, made for queries."""
