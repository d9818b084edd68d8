"""What a delivery, an echo, a connection and a request cost, as ratios to a bare C server."""
