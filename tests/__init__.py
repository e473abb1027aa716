"""A package, so that none of the same name that another project installs is imported instead."""
