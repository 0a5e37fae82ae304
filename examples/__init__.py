"""Programs that use convkit; run from a clone, not installed."""
