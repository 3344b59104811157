"""One look for all reports: self-contained HTML pages."""
