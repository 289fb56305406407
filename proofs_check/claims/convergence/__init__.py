"""Claims about algorithms: rates, constants, and where they stop."""
