"""The built-in corpus: generated preferences whose ground truth can be checked."""
