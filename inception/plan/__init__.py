"""What would a run do on chips that this machine does not have?"""
