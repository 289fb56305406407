"""From chats to token ids. Called by whoever feeds a model."""
