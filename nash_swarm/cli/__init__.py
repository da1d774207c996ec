"""The command line. Modules here import the framework inside their commands, so that help and errors are quick."""
