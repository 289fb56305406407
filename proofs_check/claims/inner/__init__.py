"""Claims about one worst case: duality, sensitivity, sets against each other."""
