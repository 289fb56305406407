"""Claims about preference models, and what robustness buys under shift."""
