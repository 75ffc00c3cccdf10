"""Reporting: tables for the terminal and pictures as files."""
