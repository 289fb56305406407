"""All stages of RLHF from one file. Called by the command."""
