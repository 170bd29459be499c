"""What a finished run is good for: images from words (``anastyle sample``), and exports that other programs load."""
