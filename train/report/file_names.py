"""Names of the files of a report, apart from the code that writes them, which is slow to import."""

PAGE_FILE = "report.html"
METRICS_FILE = "metrics.json"
HELD_OUT_FILE = "held_out.csv"  # scores of the training part, for train.audit
FILES = (PAGE_FILE, METRICS_FILE, HELD_OUT_FILE)
