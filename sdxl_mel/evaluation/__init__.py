"""The evaluation engine: folders of clips to numbers with intervals, and their report."""
