"""Published weightings of prompts by their pass rates: pure functions, and the rule that wraps any."""
