"""Where models and results come from and go to outside Ray."""
