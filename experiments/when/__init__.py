"""The scripts that write docs/results/when.md and atlas.md."""
