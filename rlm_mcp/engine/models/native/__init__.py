"""Providers that are asked in their own words, through their own packages."""
