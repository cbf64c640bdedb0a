"""HTTP: routes, schemas, pages, problem details and request limits."""
