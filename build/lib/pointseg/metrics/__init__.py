"""Scores, by the rules of those who defined them."""
