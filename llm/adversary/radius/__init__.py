"""What margins bear of a set, and sets that take a share of it as their radius."""
