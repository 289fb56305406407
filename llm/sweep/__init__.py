"""Grids of trainings into one results folder. Called by the command."""
