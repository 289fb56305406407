"""Exact and outward-rounded arithmetic: what a claim can be certain of. Called by claims."""
