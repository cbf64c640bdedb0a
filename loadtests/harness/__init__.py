"""Shared by the benchmark's sections: servers, clients, the machine, tables and plots."""
