"""What goes to the Hub: model sizes, recipes, export and model card."""
