"""Feature distillation losses: one file a method, a pure function and a module with its adapters."""
