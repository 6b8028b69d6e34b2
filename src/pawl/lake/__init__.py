"""The durable record: journal, Parquet lake, and what is written in them."""
