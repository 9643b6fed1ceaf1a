"""Deployment: a trained model in formats that run elsewhere, made smaller, and served."""
