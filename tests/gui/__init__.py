"""Tests of the panel and of the layers."""
