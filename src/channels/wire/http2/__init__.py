"""HTTP/2, the server's side: RFC 9113, and RFC 8441 for WebSocket."""
