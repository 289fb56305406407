"""From any file to pairs and prompts. Called by whoever reads data; knows neither torch nor models."""
