"""Policies trained on their own answers. Called by kinds and pipelines."""
