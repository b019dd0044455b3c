"""The book of claims: what a claim is, how it is run, and by which rule it is judged."""
