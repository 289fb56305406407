"""Frozen backbones: what they say of texts, and how far a head on that can go."""
