"""EPLD (ECCV 2024): the distance from a pixel to an instance is learnt."""
