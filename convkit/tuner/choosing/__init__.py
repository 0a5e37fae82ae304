"""Which kernel for which problem: asks the evidence in order, the cost model last. Times nothing."""
