"""Golden cases: language-free questions with exact answers, and the audit that asks them of an implementation."""
