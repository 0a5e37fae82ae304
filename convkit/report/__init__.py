"""What the measurements say: who wins where, what tuning was worth, whether it can be repeated."""
