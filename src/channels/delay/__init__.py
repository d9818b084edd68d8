"""Where Channels 1 had delayed messages; stands in INSTALLED_APPS as "channels.delay"."""
