"""Claims about the collapse radius: from which size on a set lets the worst case learn nothing."""
