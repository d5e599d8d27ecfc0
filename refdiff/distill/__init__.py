"""Distillation: a student that needs a few steps where its teacher needs many."""
