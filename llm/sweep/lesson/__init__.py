"""The demo of nothing but its name: a sweep on the corpus with a shortcut, its page and its picture."""
