"""Networks, training and prediction: torch and MONAI, never Qt."""
