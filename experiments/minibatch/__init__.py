"""The scripts that write docs/results/minibatch.md."""
