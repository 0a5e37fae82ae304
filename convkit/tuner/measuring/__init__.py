"""How candidates are timed: operands, rounds and races, online and offline, on one machine or many."""
