"""Looks: which windows of an image pass through the network, and what they cost; no pixel is read or computed here."""
