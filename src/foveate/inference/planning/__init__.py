"""Planning: which patches pass through the network, and where each counts."""
