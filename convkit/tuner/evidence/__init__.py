"""What was measured: records, the databases that hold them, and the tiers in which they are asked."""
