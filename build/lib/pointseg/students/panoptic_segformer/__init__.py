"""Panoptic SegFormer."""
