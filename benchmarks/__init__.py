"""Measurements that are read by people and asserted nowhere; each module prints a table when it is run."""
