"""Tasks of our own, one file each of at most 25 lines: ``draw(rng, ...)`` gives a question; options have defaults."""
