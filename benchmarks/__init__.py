"""Speed, memory and start-up time next to other libraries."""
