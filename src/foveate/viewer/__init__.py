"""`foveate view`: images of any size and what was predicted on them, in the browser, read tile by tile."""
