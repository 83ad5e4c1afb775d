"""Backgrounds of whole scans: the drift model and what it is made of."""
