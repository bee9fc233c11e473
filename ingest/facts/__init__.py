"""Facts to be edited: what a prompt says now, and what it should say."""
