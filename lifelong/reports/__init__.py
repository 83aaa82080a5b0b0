"""Runs and studies, shown to people."""
