"""Pages that are made when the documentation is built: from docstrings, from tables, from the repository's documents.

Each module has a function ``made``, which returns contents by the page's path.
"""
