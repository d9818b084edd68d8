"""Processes that run a server: started, watched, started again."""
