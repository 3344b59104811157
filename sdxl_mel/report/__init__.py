"""Reports: self-contained HTML pages, and the figure of a spectrogram."""
