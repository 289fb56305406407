"""``robust-rlhf simulate``: studies on a grid, in parallel and resumable. Called by the front door."""
