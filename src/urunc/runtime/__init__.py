"""The order of things: plan, create, init, and what each verb does."""
