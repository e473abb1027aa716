"""What would a run do on chips that are not here?"""
