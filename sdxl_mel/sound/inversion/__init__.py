"""From spectrograms back to sound: mel inversion and phase retrieval."""
