"""Natural policy gradient on the worst-case mixture of prompts: docs/results/npg.md."""
