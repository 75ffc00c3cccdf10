"""The command line: `app` gathers the commands, `terminal` serves them, all others hold commands."""
