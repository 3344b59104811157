"""The dataset engine: music and captions to a training set, and the training set to a cache."""
