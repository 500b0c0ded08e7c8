"""What is kept in Consul: keys, records, transactions, and who cleans up."""
