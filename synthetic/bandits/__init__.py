"""Tabular Markov decision processes, bandits and policies, exact; Algorithm 2 on them."""
