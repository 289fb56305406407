"""The scripts that write docs/results/verifiable.md."""
