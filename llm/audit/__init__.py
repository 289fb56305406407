"""What a model will see of a file of pairs, counted before anything is learned from it."""
