"""Errors, recipes, schedules, records and the runtime: what every other floor stands on."""
