"""(model, data) → numbers."""
