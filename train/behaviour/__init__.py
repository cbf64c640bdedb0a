"""The model's behaviour: what must not move a score, what must lower it, what a model must know."""
