"""Scripts that write the pages of docs/results, a folder each: ``python -m experiments.NAME.study``."""
