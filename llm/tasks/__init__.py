"""Prompts with answers that can be checked, made on the spot: tasks of our own, and those of reasoning-gym."""
