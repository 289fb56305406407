"""Claims about prompts whose answers are right or wrong: which weightings are worst cases, and what sampling does."""
