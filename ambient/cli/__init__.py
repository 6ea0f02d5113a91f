"""The command line of the mesh: `main` holds the table; a command is a file with `arguments` and `run(env, args)`."""
