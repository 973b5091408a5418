"""What each kind of prefix knows of itself."""
