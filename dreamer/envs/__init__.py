"""Environments on the API of gymnasium."""
