"""The scripts that write docs/results/collapse.md."""
