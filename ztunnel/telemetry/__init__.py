"""What is told about connections: one record each, traffic series, access log lines and flow records."""
