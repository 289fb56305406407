"""One training run, whatever is trained: settings, the robust trainer, passes, checkpoints. Called by kinds."""
