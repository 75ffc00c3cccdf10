"""The command line: `app` gathers the commands, `arguments` and `console` serve them, all others hold commands."""
