"""What a GPU is worth, in eight minutes: run by ``tools/gpu_check.sh``."""
