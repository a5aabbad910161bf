"""A backbone from images alone."""
