"""What an audit found, as a table, a page, a record for machines, and a badge."""
