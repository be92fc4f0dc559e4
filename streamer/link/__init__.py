"""Links between nodes: the protocol, the two ends, and the memories that frames lie in."""
