"""What moves the bytes of channel layers: one folder for each broker."""
