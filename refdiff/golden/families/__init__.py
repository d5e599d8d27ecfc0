"""The families of golden cases: each module makes the cases of one, from the reference or from the arrays it holds."""
