"""Layouts, points and what a training loop is allowed to see."""
