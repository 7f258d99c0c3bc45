"""The tracking part of vitsearch."""
