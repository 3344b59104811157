"""Bytes in and out: one format a module."""
