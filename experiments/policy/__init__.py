"""Robust policies from one pipeline: docs/results/policy.md."""
