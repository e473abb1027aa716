"""Speed against what people would use instead."""
