"""Results, hyperparameters and data sets of EasyEdit and related tools."""
