"""Whatever can be reported, as a results folder: so that all of it gets the same page from the same generator."""
