"""What a scan is and what correcting means: NumPy and SciPy only."""
