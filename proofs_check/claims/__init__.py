"""The claims, by what they are about. Called by the registry; no claim knows search or show."""
