"""Commands for whoever runs the server, on the stores themselves and not over HTTP."""
