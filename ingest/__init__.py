"""Takes circuits in: discovery jobs and files of other tools."""
