"""From other tools' exports to records of the lake."""
