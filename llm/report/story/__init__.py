"""What a page says before its tables: one sentence, one figure, what to do next, and the pairs behind it."""
