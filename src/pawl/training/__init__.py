"""From a dataset version to an adapter: the base model, the chat format, and the LoRA trainer."""
