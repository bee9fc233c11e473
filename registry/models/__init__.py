"""Facts about models before anything is recorded: short names, shapes, their edges."""
