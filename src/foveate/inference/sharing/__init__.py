"""Sharing the work among processes, devices and computers, and stopping it well."""
