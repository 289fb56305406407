"""The collapse radius: how large a set the data can bear before the worst case learns nothing."""
