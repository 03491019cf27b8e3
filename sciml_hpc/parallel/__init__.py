"""Who takes part: ranks and nodes, and the engine that joins their gradients."""
