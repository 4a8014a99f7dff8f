"""Constants of each data set and its published runs. Standard library only."""
