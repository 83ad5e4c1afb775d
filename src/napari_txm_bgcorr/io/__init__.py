"""File formats to and from scans and corrections."""
