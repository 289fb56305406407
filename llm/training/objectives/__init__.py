"""What DPO may pay for a pair: all losses by name, and those of both scores."""
