"""Groups of examples by name: columns of the data, bins of numbers, and products of both."""
