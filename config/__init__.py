"""What is true of each data set and its published runs: plain values, standard library only."""
