"""The report page's figures, a file a figure: each returns what Plotly draws."""
