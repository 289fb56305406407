"""Minibatch biases of the worst case: docs/results/tv-bias.md and sampled-weights.md."""
