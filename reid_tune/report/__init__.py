"""Reports of sweeps: tables, sentences, charts, the HTML page and the live view."""
