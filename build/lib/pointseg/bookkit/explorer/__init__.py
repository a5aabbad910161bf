"""The key-point-shift explorer: one JavaScript module, live and in the static book."""
