"""What runs inside the sandbox: the standard library alone, relative imports alone; the files are copied there."""
