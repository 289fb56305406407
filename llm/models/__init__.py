"""Models by name, adapters, saving, what a model says of itself. Called by whoever loads or writes one."""
