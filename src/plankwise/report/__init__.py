"""Reports: HTML pages, tables and plots, from records alone."""
