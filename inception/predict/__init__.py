"""What is in images: the Predictor, and the command for classes and features of files."""
