"""The lesson of the demo: what a set of the right size over the right groups repairs, and where a worst case hurts."""
