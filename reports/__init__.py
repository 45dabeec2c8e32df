"""Pages about runs and data sets: one self-contained HTML file each."""
