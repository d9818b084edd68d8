"""What RFC 9113 and RFC 7541 demand of a server, in 146 cases."""
