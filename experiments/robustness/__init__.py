"""Does robust training help under shift? docs/results/study.md."""
