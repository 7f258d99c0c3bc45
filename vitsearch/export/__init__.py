"""The export part of vitsearch."""
