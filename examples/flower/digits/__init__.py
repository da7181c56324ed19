"""Digits on many devices under client-level differential privacy."""
