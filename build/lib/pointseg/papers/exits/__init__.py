"""EXITS (CVPR 2024): four extreme points, a random walk, a mask generator.

Built from its supplement.
"""
