"""Measurements that can be run again, each printing a table and what follows from it."""
