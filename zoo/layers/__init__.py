"""What three or more families use identically, the spatial transformer, and capsules."""
