"""One message to many connections: encoded once, framed once, written N times."""
