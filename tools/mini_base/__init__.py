"""The recipe of the mini base: data, networks, training, judging. Run it by tools/train_mini_base.py."""
