"""The Python face: train, judge, compare, diagnose and report in a few lines. Called by people and by commands."""
