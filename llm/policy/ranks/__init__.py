"""Policies over ranks: who holds which parameters, when they are whole, and what a checkpoint of them is."""
