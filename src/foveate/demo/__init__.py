"""The demonstration: lakes, land and sea on the whole Earth, from data that pip installs."""
