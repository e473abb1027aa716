"""The command that says what is in images: answers.py, picture.py; files.py reads the images."""
