"""How counterexamples are looked for: what instances look like, moves between them, and smaller ones."""
