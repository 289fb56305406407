"""Minibatch biases of the worst-case value, exact: by enumeration and without it."""
