"""Trained reward models at work elsewhere: rewards of files and streams, and over HTTP."""
