"""Where Django looks for the commands of `channels.delay`."""
