"""The network: images -> raw grid. The only folder that imports flax."""
