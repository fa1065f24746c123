"""Files of poses and pictures, written frame by frame and whole at any moment."""
