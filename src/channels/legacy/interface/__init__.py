"""The interface server of Channels 1: connections into channels, replies out of them."""
