"""What we are compared with, a file for each library or kind; each imported only when a suite that has it is run."""
