"""Does robust training help under shift? docs/results/study-1.md."""
