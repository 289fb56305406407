"""What the pages of the site take from the code when they are built: figures, help texts, messages, docstrings."""
