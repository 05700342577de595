"""Transferability scores, beside plain formulas and scikit-learn."""
