"""How good a model is on pairs: margins, accuracies, tables. Called by kinds, sweep and commands."""
