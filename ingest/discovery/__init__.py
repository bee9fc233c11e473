"""Discovery algorithms: model, token ids and edge ids in, frozen results out."""
