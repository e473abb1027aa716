"""FID, KID, IS, precision and recall."""
