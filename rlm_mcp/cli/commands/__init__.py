"""The commands and their options. They import click alone, so that help is fast."""
