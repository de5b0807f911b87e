"""Pages: the report, figures, pictures, the dashboard."""
