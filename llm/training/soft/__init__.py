"""How sure labels are: as the data say, or as a model says that has not seen them."""
