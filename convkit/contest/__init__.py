"""Side by side: convkit, its single kernels and other libraries on the same data, in turns, in one process.

What ``convkit bench``, ``convkit demo`` and the pytest suite in ``bench/`` stand on.
"""
