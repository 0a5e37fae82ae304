"""Everything that is drawn, with matplotlib: speeds side by side, what a tuning found, the demo's photograph."""
