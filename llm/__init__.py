"""Trainers that solve the worst-case reweighting exactly over the whole effective batch.

The package imports nothing heavy by itself: pick the module you need, for example
``from llm.kinds.reward import RewardTrainer`` or ``from llm.data.pairs import read_pairs``.
"""
