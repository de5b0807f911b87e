"""Measurements that anyone can run again, each printing a table and a ratio."""
