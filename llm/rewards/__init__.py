"""Who scores an answer: a reward model, a checker by name, a function of one's own, or a weighted mixture of these."""
