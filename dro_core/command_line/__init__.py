"""What the commands of all floors share: how flags are spelt and refused, exit statuses, completion, surroundings."""
