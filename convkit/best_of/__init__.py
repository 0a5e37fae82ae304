"""The fastest of any callables, found out on real calls. Knows nothing of convolution."""

from convkit.best_of.selector import BestOf, Pipeline

__all__ = ["BestOf", "Pipeline"]
