"""Behind the routes: dynamic batching, admission control, score cache, backfill."""
