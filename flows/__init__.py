"""One flow a file, named verb_noun; bodies that read as prose."""
