"""The pool client against small fakes at socket level, for what the lab pool cannot be made to do."""
