"""What an answer earned beyond what was expected: of its tokens, and of all answers to one prompt."""
