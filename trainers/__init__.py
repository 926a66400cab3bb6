"""Plan and folds in, trained models out."""
