"""What each platform makes of an operation; every file begins with the operation's reference."""
