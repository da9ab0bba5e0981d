"""Notebooks executed as a whole, and what they make as a report here and as figures in the repository."""
