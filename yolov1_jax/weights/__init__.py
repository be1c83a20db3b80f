"""Reading and writing the weights of other programs."""
