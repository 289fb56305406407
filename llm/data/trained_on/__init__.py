"""What a run trains on: the pairs of its files, drawn, held out, and added to."""
