"""What the benchmark's sections share: servers, clients, the machine, tables and plots."""
