"""Finished models for other judges. Called by the command."""
