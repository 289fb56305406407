"""The demo: plain and robust models over sets and seeds, judged side by side on one page. Called by commands."""
