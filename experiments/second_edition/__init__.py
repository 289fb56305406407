"""The second edition of the study of robustness on preferences: registered before anything is trained."""
