"""What a chapter measures inside a method."""
