"""Which prompts a step asks, what they count, and what becomes of those whose answers tell nothing."""
