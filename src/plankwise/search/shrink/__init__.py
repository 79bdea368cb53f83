"""One command for a model that is fine-tuned already: climb from cheap to dear until the budget is met."""
