"""Documents that are no text: PDF, office files, mail, books, archives, SQLite files."""
