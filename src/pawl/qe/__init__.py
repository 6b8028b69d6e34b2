"""The built-in fleet for quality engineering: tasks, prompts, graders, real task sources."""
