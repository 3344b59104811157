"""The studio: a page of the browser over the commands, served on this machine."""
