"""pointseg: which pixels does a point own?"""
